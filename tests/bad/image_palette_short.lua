local hd = require "heddle"
local o = hd.image { width = 4, height = 4, palette = { { 0, 0 } } }   -- expect: hd.image: palette: colour 0 must be a list of 3 numbers
