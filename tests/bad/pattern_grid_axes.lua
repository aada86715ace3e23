local hd = require "heddle"
local p = hd.pattern.grid_window { size = { 2, 2 }, before = { 1 } }   -- expect: P.grid_window: before must be a list of 2 whole numbers, one for each axis, got a list of 1
