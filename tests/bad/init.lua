local hd = require "heddle"
local w = hd.param("w", { 4 }, 0.02)   -- expect: hd.param "w": init must be one of hd.normal(std)
