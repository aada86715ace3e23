local hd = require "heddle"
local fake = setmetatable({}, { __name = "heddle.node" })
local y = hd.relu(fake)   -- expect: hd.relu: x must be a tensor, got a table
