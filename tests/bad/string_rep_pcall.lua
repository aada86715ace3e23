local ok = pcall(string.rep, "x", 1 << 30)   -- expect: the spec needs more than 64 MiB of memory
print("dodged the limit")
