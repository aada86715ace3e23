local hd = require "heddle"
local x = hd.input("x", { 4 }, "f64")   -- expect: hd.input: dtype of "x" must be one of "f32", "i32", got "f64"
