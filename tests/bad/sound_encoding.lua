local hd = require "heddle"
local o = hd.sound { rate = 8000, encoding = "mp3" }   -- expect: hd.sound: encoding must be one of "mu-law", "g711-mu-law", "linear8", got
