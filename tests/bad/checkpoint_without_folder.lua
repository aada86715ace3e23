local hd = require "heddle"
local config = hd.checkpoint()   -- expect: this spec is of checkpoints: give heddle the folder that holds config.json
