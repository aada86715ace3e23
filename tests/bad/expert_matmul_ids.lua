local hd = require "heddle"
local x, w, ids = hd.input("x", { 5, 1, 8 }), hd.param("w", { 4, 8, 3 }), hd.input("ids", { 5, 2 })
local y = hd.expert_matmul(x, w, ids)   -- expect: ids [5, 2] must be i32 (ids), not f32
