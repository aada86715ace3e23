local function forever() while true do end end   -- expect: the spec ran longer than 1 s
while true do pcall(forever) end
