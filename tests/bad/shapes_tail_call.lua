local hd = require "heddle"
local function residual(x, y)
  return hd.add(x, y)   -- expect: add: a [4, 8] and b [4, 6] do not match
end
local y = residual(hd.input("x", { 4, 8 }), hd.input("y", { 4, 6 }))
