local hd = require "heddle"
local p = hd.pattern.edges { nodes = 3, list = { { 0, 1 }, { 3, 0 } } }   -- expect: P.edges: edge 2 must be { source, destination }, nodes from 0 to 2
