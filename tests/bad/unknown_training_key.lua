local hd = require "heddle"
local t = hd.training { lr = 1e-3, momentum = 0.9 }   -- expect: hd.training: unknown key 'momentum'; valid keys: lr, min_lr, warmup
