local hd = require "heddle"
hd.config { title = 'a "quoted" title' }   -- expect: hd.config: title holds ", which it cannot: it becomes part of comments and strings in C
