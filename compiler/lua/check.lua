-- How heddle.lua checks what a spec hands it. Every failure ends the compiler with the user's line and what is valid.
local core = ...

local function fail(format, ...) core.fail(select("#", ...) > 0 and format:format(...) or format) end

local function sorted_keys(t)
  local keys = {}
  for key in pairs(t) do keys[#keys + 1] = tostring(key) end
  table.sort(keys)
  return keys
end

-- Levenshtein's distance: how many letters to change to get from a to b.
local function distance(a, b)
  local row = {}
  for j = 0, #b do row[j] = j end
  for i = 1, #a do
    local corner = row[0]
    row[0] = i
    for j = 1, #b do
      local cost = a:byte(i) == b:byte(j) and 0 or 1
      corner, row[j] = row[j], math.min(row[j] + 1, row[j - 1] + 1, corner + cost)
    end
  end
  return row[#b]
end

-- Names like `name`, nearest first: equal but for _ and case, few letters away, or one inside the other.
local function near(name, names)
  local found = {}
  local function plain(s) return (s:lower():gsub("_", "")) end
  for _, candidate in ipairs(names) do
    local d = distance(plain(name), plain(candidate))
    if d > 0 and #name > 2 and candidate:find(name, 1, true) then d = math.min(d, 2) end
    if d <= math.max(1, #name // 3) then found[#found + 1] = { d, candidate } end
  end
  table.sort(found, function(a, b) return a[1] < b[1] or a[1] == b[1] and a[2] < b[2] end)
  local out = {}
  for i = 1, math.min(3, #found) do out[i] = found[i][2] end
  return out
end

local function unknown(table_name, name, names)
  name = tostring(name)
  local like = near(name, names)
  if #like == 0 then fail("%s.%s does not exist; there are: %s", table_name, name, table.concat(names, ", ")) end
  for i, n in ipairs(like) do like[i] = table_name .. "." .. n end
  fail("%s.%s does not exist; did you mean %s?", table_name, name, table.concat(like, " or "))
end

local function kind_of(value)
  if core.is_node(value) then return "a tensor" end
  if core.is_pattern(value) then return "a pattern" end
  if value == nil then return "nothing" end
  if type(value) == "string" then return ("%q"):format(value) end
  if type(value) == "number" or type(value) == "boolean" then return tostring(value) end
  return "a " .. type(value)
end

local function quoted(list)
  local out = {}
  for i, value in ipairs(list) do out[i] = '"' .. value .. '"' end
  return table.concat(out, ", ")
end

-- The options of `what`: a table whose keys are all in `allowed` (a list).
local function options(what, given, allowed)
  if given == nil then return {} end
  if type(given) ~= "table" then fail("%s: options must be a table { key = value }, got %s", what, kind_of(given)) end
  local known = {}
  for _, key in ipairs(allowed) do known[key] = true end
  for key in pairs(given) do
    if not known[key] then fail("%s: unknown key '%s'; valid keys: %s", what, tostring(key), table.concat(allowed, ", ")) end
  end
  return given
end

local function integer(what, value, least)
  local whole = math.tointeger(value)
  if not whole or type(value) == "string" or whole < (least or 1) then
    fail("%s must be a whole number of %d or more, got %s", what, least or 1, kind_of(value))
  end
  return whole
end

local function number(what, value, least, below)
  if type(value) ~= "number" or value ~= value or value < (least or -math.huge) or value >= (below or math.huge) then
    fail("%s must be a number%s%s, got %s", what, least and (" of %g or more"):format(least) or "",
         below and (" below %g"):format(below) or "", kind_of(value))
  end
  return value
end

local function choice(what, value, default, valid)
  if value == nil then return default end
  for _, v in ipairs(valid) do if v == value then return v end end
  fail("%s must be one of %s, got %s", what, quoted(valid), kind_of(value))
end

-- Names end up in C comments and strings, so some characters cannot be part of them.
local function check_text(what, text, fail_with)
  local bad = text:match("%c")
  if bad then fail_with(("%s holds a control character (byte %d); it must be printable text"):format(what, bad:byte())) end
  bad = text:match("[\"'\\]") or text:match("%*/") or text:match("/%*") or text:match("%?%?")
  if bad then fail_with(("%s holds %s, which it cannot: it becomes part of comments and strings in C"):format(what, bad)) end
  if not utf8.len(text) then fail_with(("%s is not valid UTF-8"):format(what)) end
end

local function check_name(what, name)
  if type(name) ~= "string" then fail("%s must be text, got %s", what, kind_of(name)) end
  if name == "" then fail("%s must not be empty", what) end
  check_text(what, name, core.fail)
  return name
end

local reserved = {}
for word in ([[alignas alignof and and_eq asm auto bitand bitor bool break case catch char char8_t char16_t char32_t class compl
  concept const consteval constexpr constinit const_cast continue co_await co_return co_yield decltype default delete do double
  dynamic_cast else enum explicit export extern false float for friend goto if inline int long mutable namespace new noexcept
  not not_eq nullptr operator or or_eq private protected public register reinterpret_cast requires restrict return short signed
  sizeof static static_assert static_cast struct switch template this thread_local throw true try typedef typeid typename
  typeof union unsigned using virtual void volatile wchar_t while xor xor_eq main]]):gmatch("%S+") do reserved[word] = true end

local function check_identifier(what, name)
  if type(name) ~= "string" or not name:match("^[A-Za-z][A-Za-z0-9_]*$") then
    fail("%s becomes a name in C: a letter, then letters, digits and _; got %s", what, kind_of(name))
  end
  if reserved[name] then fail("%s is '%s', a word that C or C++ keeps for itself; choose another", what, name) end
  if #name > 100 then fail("%s is longer than 100 letters", what) end
  return name
end

local function shape_of(x) return (core.about(x)) end

local function describe(x)
  local shape, _, name = core.about(x)
  return (name and '"' .. name .. '" ' or "") .. "[" .. table.concat(shape, ", ") .. "]"
end

local function tensor(what, x)
  if not core.is_node(x) then fail("%s must be a tensor, got %s", what, kind_of(x)) end
  return x
end

-- Axis of a tensor of `rank` axes, from the user's count (1, -1) to C's (0).
local function axis_of(what, axis, rank)
  local whole = math.tointeger(axis)
  if not whole or whole == 0 or whole > rank or whole < -rank then
    fail("%s: axis %s does not exist; axes are 1 to %d, or -1 (the last) to -%d", what, kind_of(axis), rank, rank)
  end
  return whole > 0 and whole - 1 or rank + whole
end

return {
  fail = fail, sorted_keys = sorted_keys, near = near, unknown = unknown, kind_of = kind_of, quoted = quoted,
  options = options, integer = integer, number = number, choice = choice, check_name = check_name, check_text = check_text, check_identifier = check_identifier,
  shape_of = shape_of, describe = describe, tensor = tensor, axis_of = axis_of,
}
