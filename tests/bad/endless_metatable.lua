local t = setmetatable({}, {})
getmetatable(t).__index = function(_, k) return t[k] end   -- expect: stack overflow
local x = t.a
