local hd = require "heddle"
local w = hd.param("a\nb", { 4 })   -- expect: hd.param: the name holds a control character (byte 10)
