local hd = require "heddle"
local p = hd.pattern.causal()
while true do p = p | p end   -- expect: pattern has more than 1024 terms when written out
