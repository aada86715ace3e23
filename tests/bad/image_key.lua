local hd = require "heddle"
local o = hd.image { width = 4, heigth = 4 }   -- expect: hd.image: unknown key 'heigth'; valid keys: width, height, channels, order, palette
