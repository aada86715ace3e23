local hd = require "heddle"
local x = hd.input("x", { 2, 8, 16 })
local y = hd.rope(x, { head_dim = 8, frequencies = { 1, 0.1, 0.01 } })   -- expect: frequencies must be a list of 4 numbers, one for each pair of dims 8
