local hd = require "heddle"
local x = hd.input("x", { 4, 8 })
local dx = hd.grad(hd.sum(x))   -- expect: hd.grad: the second argument must be a list of tensors, got nothing
