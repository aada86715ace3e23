local hd = require "heddle"
local o = hd.image { width = 4, height = 4, palette = { { 0, 0, 0 }, { 256, 0, 0 } } }   -- expect: hd.image: palette: colour 1 has 256; valid: whole numbers from 0 to 255
