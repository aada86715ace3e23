local hd = require "heddle"
local config = hd.checkpoint { hidden_size = "wide" }
local width = config:integer "hidden_size"   -- expect: the checkpoint's configuration: key "hidden_size" is "wide"; it must be a whole number of 1 or more
