local hd = require "heddle"
local p = hd.pattern.sparse_transformer_fixed { l = 128, c = 48, heads = 2 }   -- expect: P.sparse_transformer_fixed: c = 48 does not divide l = 128 into groups for heads to take turns at
