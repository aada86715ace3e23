local m = require "nowhere"   -- expect: require "nowhere": there is no file
