local hd = require "heddle"
local y = hd.input("x", { 4 }) ^ 3   -- expect: ^ takes the exponents 2, 0.5, -0.5 and -1, got 3
