local hd = require "heddle"
local a = hd.param("w", { 4 })
local b = hd.param("w", { 4 })   -- expect: hd.param "w" exists already:
