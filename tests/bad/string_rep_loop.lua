local text = ("a"):rep(1 << 20)
while true do local _ = text:rep(8):upper():reverse() end   -- expect: the spec ran longer than 1 s
