local hd = require "heddle"
local x, w, ids = hd.input("x", { 5, 1, 8 }), hd.param("w", { 4, 8, 3 }), hd.input("ids", { 5, 2 }, "i32")
local y = hd.expert_matmul(x, w, ids)   -- expect: it has no gradient: models with experts can be run, not trained
local g = hd.grad(hd.sum(y), { w })
