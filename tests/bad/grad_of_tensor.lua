local hd = require "heddle"
local x = hd.input("x", { 4, 8 })
local dx = hd.grad(x * x, { x })   -- expect: hd.grad: the loss [4, 8] must be one number; take hd.sum or hd.mean of it first
