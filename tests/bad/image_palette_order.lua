local hd = require "heddle"
local o = hd.image { width = 4, height = 4, order = "chw", palette = { { 0, 0, 0 } } }   -- expect: hd.image: order is for images without a palette
