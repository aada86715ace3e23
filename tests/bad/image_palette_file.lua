local hd = require "heddle"
local o = hd.image { width = 4, height = 4, palette = "nowhere.json" }   -- expect: hd.image: palette: cannot read tests/bad/nowhere.json: No such file or directory
