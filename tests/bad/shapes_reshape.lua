local hd = require "heddle"
local x = hd.input("x", { 4, 8 })
local y = hd.reshape(x, { 5, -1 })   -- expect: reshape: x "x" [4, 8] has 32 elements, which does not divide
