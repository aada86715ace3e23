local hd = require "heddle"
local p = hd.pattern.natten { size = { 8, 8 }, kernel = 9 }   -- expect: P.natten: axis 1: kernel 9 times dilation 1 is more than its 8 positions
