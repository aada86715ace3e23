-- Makes Lua itself deterministic and its mistakes readable, before heddle.lua and the spec run.

-- Lua visits string keys in an order that differs from run to run. A spec must give the same program each time, so `pairs`
-- visits numbers first, then strings, both ascending, then whatever is left.
local raw_next, raw_type, raw_sort, get_metatable, raw_math_type = next, type, table.sort, getmetatable, math.type
local rank = { number = 1, string = 2 }
local function before(a, b)
  local ra, rb = rank[raw_type(a)], rank[raw_type(b)]
  if ra ~= rb then return ra < rb end
  return a < b
end

function pairs(t)
  local meta = get_metatable(t)
  if raw_type(meta) == "table" and meta.__pairs then return meta.__pairs(t) end
  local keys, others = {}, {}
  for key in raw_next, t do
    if rank[raw_type(key)] then keys[#keys + 1] = key else others[#others + 1] = key end
  end
  raw_sort(keys, before)
  for _, key in ipairs(others) do keys[#keys + 1] = key end
  local at = 0
  return function()
    while at < #keys do
      at = at + 1
      local key = keys[at]
      if t[key] ~= nil then return key, t[key] end
    end
  end, t
end

-- A name nobody defined is a mistake worth its own message, not "attempt to index a nil value".
setmetatable(_G, {
  __index = function(_, name)
    error("unknown name '" .. tostring(name) .. "'; a spec has no files, processes or loaded code: it sees require, string, table, " ..
          "math, utf8, print and Lua's basic functions, and what it defines itself", 2)
  end,
  __metatable = false,
})
