local hd = require "heddle"
local o = hd.sound { encoding = "mu-law" }   -- expect: hd.sound: rate must be a whole number of 1 or more, got nothing
