local hd = require "heddle"
local ids, values = hd.top_k(hd.input("x", { 2, 8 }), 9)   -- expect: k is 9; of x [2, 8] it can be 1 to 8
