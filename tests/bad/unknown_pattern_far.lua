local hd = require "heddle"
local p = hd.pattern.butterfly()   -- expect: hd.pattern.butterfly does not exist; there are: axial, axis, bigbird, blocks, causal, chunk, 
