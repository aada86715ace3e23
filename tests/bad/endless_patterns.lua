local hd = require "heddle"
for i = 1, 1 << 40 do local p = hd.pattern.stride(i) end   -- expect: the spec's graph needs more than 64 MiB
