local s = ("x"):rep(1 << 30)   -- expect: the spec needs more than 64 MiB of memory
