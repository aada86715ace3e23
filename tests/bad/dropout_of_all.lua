local hd = require "heddle"
local y = hd.dropout(hd.input("x", { 4 }), 1.0)   -- expect: hd.dropout: p must be a number of 0 or more below 1, got 1.0
