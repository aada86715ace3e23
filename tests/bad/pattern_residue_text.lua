local hd = require "heddle"
local p = hd.pattern.residues(4, "3")   -- expect: P.residues: the residues must be a whole number, a list of them, or { first = a, last = b }, got "3"
