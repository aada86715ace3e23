local hd = require "heddle"
local x = widht * 2   -- expect: unknown name 'widht'
