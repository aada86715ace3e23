local hd = require "heddle"
local p = hd.pattern.longformer { windows = 3 }   -- expect: P.longformer: unknown key 'windows'; valid keys: window, tokens, dilation, causal
