local hd = require "heddle"
local s = hd.scope("h\\0")   -- expect: hd.scope: the name holds \, which it cannot
