local t = {}
for i = 1, 1 << 40 do t[i] = { i } end   -- expect: the spec needs more than 64 MiB of memory
