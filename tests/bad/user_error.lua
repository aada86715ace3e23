local hd = require "heddle"
error("no\nsuch\nluck")   -- expect: no such luck
