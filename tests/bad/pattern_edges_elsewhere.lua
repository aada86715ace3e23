local hd = require "heddle"
local p = hd.pattern.edges { nodes = 3, file = "../golden/embed.cc" }   -- expect: P.edges: ../golden/embed.cc does not lie in the spec's own folder; only files there can be read
