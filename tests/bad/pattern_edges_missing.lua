local hd = require "heddle"
local p = hd.pattern.edges { nodes = 3, file = "nowhere.txt" }   -- expect: P.edges: cannot read tests/bad/nowhere.txt: No such file or directory
