-- One product of a weight, y[m][n] = x[m][k] w[n][k]^T: what bench/products.c holds against the libraries.
local hd = require "heddle"
local c = hd.config { m = 512, n = 512, k = 512 }

local x = hd.input("x", { c.m, c.k })
local y = hd.scope(""):linear("w", x, c.n, { bias = false })
return hd.model { name = "product", entries = { forward = { inputs = { x }, outputs = { { "y", y } } } } }
