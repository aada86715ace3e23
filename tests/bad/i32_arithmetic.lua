local hd = require "heddle"
local ids = hd.input("ids", { 4 }, "i32")
local y = hd.exp(ids)   -- expect: is i32; it must be f32
