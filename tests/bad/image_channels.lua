local hd = require "heddle"
local o = hd.image { width = 4, height = 4, channels = 2 }   -- expect: hd.image: channels must be 1 (grey) or 3 (red, green, blue), got 2
