local hd = require "heddle"
local x = hd.input("x", { 2, 8, 16 })
local y = hd.rope(x, { head_dim = 4, base = 500, frequencies = { 1, 0.1 } })   -- expect: give base or frequencies, not both
