setmetatable({}, { __gc = function() while true do end end })
for i = 1, 1e7 do local t = {} end   -- expect: the spec ran longer than 1 s
