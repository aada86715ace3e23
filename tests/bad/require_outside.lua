local m = require "../compiler/spec_test"   -- expect: require: the name may hold letters, digits and _ only
