local hd = require "heddle"
return hd.model { name = "m", entries = { f = { outputs = {} } } }   -- expect: hd.model: entry f has no outputs
