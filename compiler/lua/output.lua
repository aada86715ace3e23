-- What the tokens of a language model are when they are neither text nor ids: hd.image and hd.sound. Part of heddle.lua.
local core, check, hd = ...
local fail, kind_of, options, integer, choice = check.fail, check.kind_of, check.options, check.integer, check.choice

local output_meta = { __name = "output" }

-- The colours of a palette, as bytes: a list { { red, green, blue }, ... } of 0 to 255 (numbers { 0, 64, 255 } if channels is 1), or the
-- name of a JSON file in the spec's own folder that has them as "clusters" from -1 to 1, like the preprocessor_config.json of Image GPT.
local function palette_bytes(what, given, channels)
  local list, scaled = given, false
  if type(given) == "string" then
    local values = core.json_file(what .. ": palette", given)
    list, scaled = type(values) == "table" and values.clusters, true
    if type(list) ~= "table" then fail('%s: palette: %s has no list "clusters"', what, given) end
  elseif type(given) == "table" and given.clusters then          -- config:clusters()
    list, scaled = given.clusters, true
  elseif type(given) ~= "table" then
    fail("%s: palette must be a list of colours, or the name of a file, got %s", what, kind_of(given))
  end
  local out = {}
  if #list < 1 or #list > 65536 then fail("%s: palette has %d colours; valid: 1 to 65536", what, #list) end
  for i, colour in ipairs(list) do
    if type(colour) == "number" and channels == 1 then colour = { colour } end
    if type(colour) ~= "table" or #colour ~= channels then fail("%s: palette: colour %d must be a list of %d numbers", what, i - 1, channels) end
    for c, x in ipairs(colour) do
      local byte = type(x) == "number" and (scaled and math.floor(127.5 * (x + 1) + 0.5) or math.tointeger(x))
      if not byte or byte < 0 or byte > 255 then
        fail("%s: palette: colour %d has %s; valid: %s", what, i - 1, tostring(x), scaled and "numbers from -1 to 1" or "whole numbers from 0 to 255")
      end
      out[#out + 1] = string.char(byte)
    end
  end
  return table.concat(out)
end

-- Tokens are pixels, row by row. Without a palette each is a byte: of one channel (grey) or of three (red, green, blue), all channels of a
-- pixel together (order "hwc": height, width, channel) or plane after plane ("chw", as the files of CIFAR-10 have them). With a palette
-- each is the number of a colour.
function hd.image(given)
  local what = "hd.image"
  local o = options(what, given, { "width", "height", "channels", "order", "palette" })
  local image = { kind = "image", width = integer(what .. ": width", o.width), height = integer(what .. ": height", o.height), channels = integer(what .. ": channels", o.channels or 3) }
  if image.channels ~= 1 and image.channels ~= 3 then fail("%s: channels must be 1 (grey) or 3 (red, green, blue), got %d", what, image.channels) end
  if image.width > 16384 or image.height > 16384 then fail("%s: %d x %d pixels; at most 16384 x 16384 are possible", what, image.width, image.height) end
  image.planar = choice(what .. ": order", o.order, "hwc", { "hwc", "chw" }) == "chw"
  if o.palette ~= nil then
    if o.order then fail("%s: order is for images without a palette, whose pixels are several tokens", what) end
    image.palette = palette_bytes(what, o.palette, image.channels)
  end
  return setmetatable(image, output_meta)
end

-- Tokens are the samples of a sound, `rate` a second. encoding, of tokens 0 to 255:
--   "mu-law"        the quantised mu-law of WaveNet and torchaudio: amplitudes sign(x) (256^|x| - 1) / 255, x = 2 token / 255 - 1
--   "g711-mu-law"   the bytes of telephony, as `sox FILE.wav -t ul` and `ffmpeg -f mulaw` write them
--   "linear8"       unsigned 8-bit PCM: 128 is silence
function hd.sound(given)
  local what = "hd.sound"
  local o = options(what, given, { "rate", "encoding" })
  local rate = integer(what .. ": rate", o.rate)
  if rate > 768000 then fail("%s: rate is %d samples a second; at most 768000 are possible", what, rate) end
  return setmetatable({ kind = "sound", rate = rate, encoding = choice(what .. ": encoding", o.encoding, "mu-law", { "mu-law", "g711-mu-law", "linear8" }) }, output_meta)
end

-- The output of a model of `vocab` logits and `length` positions, or nil.
return function(what, output, vocab, length)
  if output == nil or output == false then return nil end
  if getmetatable(output) ~= output_meta then fail("%s: output must be made by hd.image { ... } or hd.sound { ... }, got %s", what, kind_of(output)) end
  local ids = output.palette and #output.palette // output.channels or 256
  if vocab > ids then fail("%s: output: the logits are of %d tokens, %s", what, vocab, output.palette and ("the palette has %d colours"):format(ids) or "a byte has 256 values") end
  if output.kind == "image" then
    local tokens = output.width * output.height * (output.palette and 1 or output.channels)
    if tokens > length then
      fail("%s: output: an image of %d x %d%s has %d tokens, the model %d positions", what, output.width, output.height, output.palette and "" or (" x %d"):format(output.channels), tokens, length)
    end
  end
  return output
end
