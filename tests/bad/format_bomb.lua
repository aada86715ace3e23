local text = "x"
for i = 1, 40 do text = text .. text end   -- expect: the spec needs more than 64 MiB of memory
