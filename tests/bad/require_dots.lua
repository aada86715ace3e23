local m = require "os.path"   -- expect: require: the name may hold letters, digits and _ only
