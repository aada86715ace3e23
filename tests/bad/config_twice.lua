local hd = require "heddle"
hd.config { a = 1 }
hd.config { b = 2 }   -- expect: hd.config is called a second time; the first was
