local text = ("a"):rep(40)
local found = text:find((".-"):rep(20) .. "b")   -- expect: the spec ran longer than 1 s
