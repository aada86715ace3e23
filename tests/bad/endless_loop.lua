local hd = require "heddle"
while true do end   -- expect: the spec ran longer than 1 s; a spec only builds a graph
