local hd = require "heddle"
local p = hd.pattern.blocks { block = 4, layout = { { 1, 0 }, { 2, 1 } } }   -- expect: P.blocks: row 1, column 0 of the layout is 2; valid: 0 and 1
