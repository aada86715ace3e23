local hd = require "heddle"
local o = hd.image { width = 4, height = 4, order = "rgb" }   -- expect: hd.image: order must be one of "hwc", "chw", got
