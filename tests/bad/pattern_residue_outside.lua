local hd = require "heddle"
local p = hd.pattern.residues(4, { 1, 4 })   -- expect: P.residues: residue 4 does not exist for period 4; valid: 0 to 3
