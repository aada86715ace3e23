local hd = require "heddle"
while true do pcall(error) end   -- expect: the spec ran longer than 1 s
