-- Expands a kernel template: C with Lua in the margin.
--   a line whose first non-blank character is @ is Lua        @ for r = 0, MR - 1 do
--   @-- starts a comment that leaves no trace
--   @ include "file" runs another template's lines here; what it defines as globals stays visible
--   $(expression) inside a C line is replaced by its value    acc$(r) = hd_load(b + $(VL * r));
-- One Lua line is made per template line, and the chunk is loaded under the template's own name, so a Lua error names the
-- template's line. An unknown name in an expression is an error. Parameters are visible as variables.
local M = {}

local function piece(line)
  local out, at = {}, 1
  while true do
    local s, e = line:find("%$%b()", at)
    if not s then break end
    if s > at then out[#out + 1] = string.format("%q", line:sub(at, s - 1)) end
    out[#out + 1] = "_text(" .. line:sub(s + 2, e - 1) .. ")"
    at = e + 1
  end
  out[#out + 1] = string.format("%q", line:sub(at) .. "\n"):gsub("\\\n", "\\n")
  return "_emit(" .. table.concat(out, ", ") .. ")"
end

local function chunk_of(text, name, environment)
  local code = {}
  for line in (text:gsub("\n$", "") .. "\n"):gmatch("(.-)\n") do
    local lua = line:match("^%s*@(.*)$")
    code[#code + 1] = lua or piece(line)
  end
  local chunk, message = load(table.concat(code, "\n"), "=" .. name, "t", environment)
  if not chunk then error(message, 0) end
  return chunk
end

-- folder: where included files lie (default: templates, as seen from the repository's root)
function M.expand(text, name, parameters, folder)
  local out = {}
  local environment = {}
  for key, value in pairs(parameters) do environment[key] = value end
  environment._emit = function(...) for i = 1, select("#", ...) do out[#out + 1] = (select(i, ...)) end end
  environment._text = function(value)
    local kind = math.type(value)
    if kind == "float" and value == math.floor(value) and math.abs(value) < 2^53 then return string.format("%d", value) end
    if kind or type(value) == "string" then return tostring(value) end
    error("a template expression gave " .. type(value), 2)
  end
  for _, key in ipairs { "assert", "error", "ipairs", "pairs", "math", "string", "table", "tostring", "tonumber", "type", "select" } do
    environment[key] = environment[key] or _G[key]
  end
  setmetatable(environment, { __index = function(_, key) error("unknown name '" .. tostring(key) .. "' in " .. name, 2) end })
  environment.include = function(file)
    local handle = assert(io.open((folder or "templates") .. "/" .. file))
    local included = handle:read("a")
    handle:close()
    chunk_of(included, file, environment)()
  end
  chunk_of(text, name, environment)()
  return table.concat(out)
end

return M
