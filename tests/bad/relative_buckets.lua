local hd = require "heddle"
local b = hd.relative_buckets { max_distance = 4, t5 = {} }   -- expect: hd.relative_buckets: give either max_distance, or t5 = { buckets = 32, max_distance = 128, bidirectional = true }
