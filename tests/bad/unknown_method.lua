local hd = require "heddle"
local x = hd.input("x", { 4, 8 })
local y = x:softmx()   -- expect: hd.softmx does not exist; did you mean hd.softmax?
