local hd = require "heddle"
local p = hd.pattern.blocks { block = 4, rows = { { 0 }, { 2 } } }   -- expect: blocks of 4: row 1 names block column 2; valid: 0 to 1
