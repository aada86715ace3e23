local hd = require "heddle"
local function block(x)
  return hd.scope("h"):linear("fc", x, 8) + hd.input("b", { 7 })   -- expect: add: a [4, 8] and b [7] do not match
end
local y = block(hd.input("x", { 4, 8 }))
