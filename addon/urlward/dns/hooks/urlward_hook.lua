-- What urlward's hooks for PowerDNS Recursor and Knot Resolver share: the filter that says which names may be
-- listed, and the socket to urlward. Needs LuaJIT and nothing else.
--
-- URLWARD_HOOK in the resolver's environment names the folder that is gateway.hook.folder in urlward's
-- configuration, where it is not the one below.

local bit, ffi = require("bit"), require("ffi")
local band, bor, bxor, lshift, rshift, rol, tobit = bit.band, bit.bor, bit.bxor, bit.lshift, bit.rshift, bit.rol, bit.tobit

local FOLDER = os.getenv("URLWARD_HOOK") or "/var/lib/urlward-hook"
local LOOK = 0.5  -- seconds between two looks at the filter, and until urlward is tried again
local SAY = 60  -- seconds between two lines in the log of one kind
local FAILURES = 3  -- in a row, after which urlward is left alone until LOOK is over
local LONGEST = 0xFFFF

ffi.cdef [[
typedef struct { uint16_t family; char path[108]; } urlward_address;
typedef struct { int fd; short events; short revents; } urlward_poll;
typedef struct { int64_t seconds; int64_t nanoseconds; } urlward_time;
int socket(int, int, int);
int connect(int, const void *, uint32_t);
ssize_t send(int, const void *, size_t, int);
ssize_t recv(int, void *, size_t, int);
int poll(void *, unsigned long, int);
int close(int);
int clock_gettime(int, void *);
]]
local C = ffi.C

local M = { closed = false, tag = 0 }
M.log = function(_) end  -- set by the hook

-- Time and log

local time = ffi.new("urlward_time")

local function now()
  C.clock_gettime(1, time)
  return tonumber(time.seconds) + tonumber(time.nanoseconds) / 1e9
end

local said = {}

local function say(kind, line)
  local t = now()
  if t < (said[kind] or 0) then return false end
  said[kind] = t + SAY
  M.log("urlward: " .. line)
  return true
end
M.say = say

-- CRC-32, as zlib's

local crcs = ffi.new("uint32_t[256]")
for i = 0, 255 do
  local c = i
  for _ = 1, 8 do
    c = bxor(rshift(c, 1), band(0xEDB88320, -band(c, 1)))
  end
  crcs[i] = c
end

local function crc32(data, from, to)
  local c = -1
  for i = from, to - 1 do
    c = bxor(tobit(crcs[band(bxor(c, data[i]), 255)]), rshift(c, 8))
  end
  return bxor(c, -1)
end

-- ChaCha20 (RFC 8439), in place

local function chacha20(data, size, key, nonce)
  local s, x = ffi.new("uint32_t[16]"), ffi.new("int32_t[16]")
  local function word(bytes, at)
    local a, b, c, d = bytes:byte(at, at + 3)
    return bor(a, lshift(b, 8), lshift(c, 16), lshift(d, 24))
  end
  s[0], s[1], s[2], s[3] = 0x61707865, 0x3320646e, 0x79622d32, 0x6b206574
  for i = 0, 7 do s[4 + i] = word(key, 4 * i + 1) end
  for i = 0, 2 do s[13 + i] = word(nonce, 4 * i + 1) end
  local function quarter(a, b, c, d)
    local xa, xb, xc, xd = x[a], x[b], x[c], x[d]
    xa = tobit(xa + xb); xd = rol(bxor(xd, xa), 16)
    xc = tobit(xc + xd); xb = rol(bxor(xb, xc), 12)
    xa = tobit(xa + xb); xd = rol(bxor(xd, xa), 8)
    xc = tobit(xc + xd); xb = rol(bxor(xb, xc), 7)
    x[a], x[b], x[c], x[d] = xa, xb, xc, xd
  end
  for block = 0, rshift(size + 63, 6) - 1 do
    s[12] = block
    for i = 0, 15 do x[i] = tobit(s[i]) end
    for _ = 1, 10 do
      quarter(0, 4, 8, 12); quarter(1, 5, 9, 13); quarter(2, 6, 10, 14); quarter(3, 7, 11, 15)
      quarter(0, 5, 10, 15); quarter(1, 6, 11, 12); quarter(2, 7, 8, 13); quarter(3, 4, 9, 14)
    end
    local at = block * 64
    for i = 0, 15 do
      local w = tobit(x[i] + tobit(s[i]))
      for j = 0, math.min(3, size - at - 4 * i - 1) do
        local k = at + 4 * i + j
        data[k] = bxor(data[k], band(rshift(w, 8 * j), 255))
      end
    end
  end
end

-- The filter; urlward.dns.hook_filter in urlward has its form

local filter = { settle = 0.005, any = true, suffixes = {}, names = {}, sieves = {}, has_names = false }

local function number(data, at)
  return data[at] + data[at + 1] * 256 + data[at + 2] * 65536 + data[at + 3] * 16777216
end

local function parsed(data, size)
  local told, names, sieves = number(data, 8), number(data, 12), number(data, 20)
  local found = {
    settle = number(data, 0) / 1e6, closed = number(data, 4) == 1, any = number(data, 16) == 1,
    suffixes = {}, names = {}, sieves = {}, has_names = names > 0, data = data,
  }
  local at = 24
  for suffix in ffi.string(data + at, told):gmatch("%S+") do found.suffixes[suffix] = true end
  at = at + told
  for _ = 1, names do
    found.names[tobit(number(data, at))] = true
    at = at + 4
  end
  for _ = 1, sieves do
    local bits = number(data, at)
    if at + 4 + bits > size then error("not whole", 0) end
    found.sieves[#found.sieves + 1] = { bits = data + at + 4, mask = bits * 8 - 1 }
    at = at + 4 + bits
  end
  return found
end

local function read(name)
  local file = io.open(FOLDER .. "/" .. name, "rb")
  if file == nil then error("not there, or not readable", 0) end
  return file
end

local function unsealed(header, sealed, key)
  local head = ffi.cast("const uint8_t *", header)
  if #header < 32 or header:sub(1, 8) ~= "URLWHOOK" or number(head, 8) ~= 1 then
    error("not a filter that this hook reads", 0)
  end
  local size = number(head, 12)
  if #sealed ~= size or #key ~= 32 or size < 24 then error("not whole", 0) end
  local data = ffi.new("uint8_t[?]", size)
  ffi.copy(data, sealed, size)
  chacha20(data, size, key, header:sub(21, 32))
  if crc32(data, 0, size) ~= tobit(number(head, 16)) then error("damaged, or sealed with another key", 0) end
  return data, size
end

local header_in_force, bad, look_at, went_on = "", "", 0, 0

local function take()
  local file = read("filter")
  local header = file:read(32) or ""
  if header == header_in_force or header == bad then
    file:close()
    return
  end
  local sealed = file:read("*a") or ""
  file:close()
  local key_file = read("key")
  local key = (key_file:read("*a") or ""):gsub("%s", ""):gsub("%x%x", function(pair)
    return string.char(tonumber(pair, 16))
  end)
  key_file:close()
  local ok, found = pcall(function() return parsed(unsealed(header, sealed, key)) end)
  if not ok then
    bad = header
    error(found, 0)
  end
  filter, header_in_force, bad = found, header, ""
  M.closed = filter.closed
  M.tag = number(ffi.cast("const uint8_t *", header), 20)  -- of its nonce, so that all threads have the same
end

-- Take another filter, if there is one and it is time to look.
function M.look()
  local t = now()
  if t < look_at then return end
  look_at = t + LOOK
  local ok, why = pcall(take)
  if not ok then say("filter", FOLDER .. "/filter: " .. tostring(why) .. "; the one before holds") end
  if went_on > 0 and say("passed", went_on .. " answers " .. (M.closed and "failed" or "went on") .. " without it") then
    went_on = 0
  end
end

local host, starts = ffi.new("uint8_t[256]"), ffi.new("int[129]")

-- Whether the name in `host` may be listed: so many bytes, small letters, and labels.
local function may_list(size, labels)
  -- A last label that could be a number is one of an address.
  local top, last = starts[labels - 1], host[size - 1]
  if (last >= 48 and last <= 57) or (host[top] == 48 and host[top + 1] == 120) then return true end
  if filter.has_names then
    for i = 0, labels - 1 do
      local stop = i + 1 < labels and starts[i + 1] - 1 or size
      if filter.names[crc32(host, starts[i], stop)] then return true end
    end
  end
  local sieves = filter.sieves
  for i = 0, labels - 1 do
    local value, second = crc32(host, starts[i], size), nil
    for n = 1, #sieves do
      local bits, mask = sieves[n].bits, sieves[n].mask
      local slot = band(value, mask)
      if band(rshift(bits[rshift(slot, 3)], band(slot, 7)), 1) == 1 then
        -- The product has 64 bits, of which those from the eighth on count.
        second = second or tobit(tonumber(ffi.cast("uint64_t", value % 4294967296) * 0x9E3779B1ULL / 128ULL % 4294967296ULL))
        slot = band(second, mask)
        if band(rshift(bits[rshift(slot, 3)], band(slot, 7)), 1) == 1
          and not filter.suffixes[ffi.string(host + starts[i], size - starts[i])] then
          return true
        end
      end
    end
  end
  return false
end

-- One byte of a name, as small letter; nil where no plain host has it.
local function plain(c)
  if c >= 65 and c <= 90 then return c + 32 end
  if (c >= 97 and c <= 122) or (c >= 48 and c <= 57) or c == 45 or c == 95 then return c end
  return nil
end

-- Whether a name in wire form (a pointer to its first label) may be listed.
function M.may_list(wire)
  if wire[0] == 0 then return false end
  if filter.any then return true end
  local size, labels, at = 0, 0, 0
  while wire[at] ~= 0 do
    local length = wire[at]
    if length > 63 or size + length > 254 then return true end
    if labels > 0 then
      host[size] = 46
      size = size + 1
    end
    starts[labels] = size
    labels = labels + 1
    for i = at + 1, at + length do
      local c = plain(wire[i])
      if c == nil then return true end
      host[size] = c
      size = size + 1
    end
    at = at + length + 1
  end
  return may_list(size, labels)
end

-- The same of a name as text, with or without its last dot.
function M.may_list_text(name)
  local size = #name
  if name:byte(size) == 46 then size = size - 1 end
  if size == 0 then return false end
  if filter.any or size > 253 then return true end
  local labels = 1
  starts[0] = 0
  for i = 0, size - 1 do
    local c = name:byte(i + 1)
    if c == 46 then
      if labels > 127 then return true end
      starts[labels] = i + 1
      labels = labels + 1
    else
      c = plain(c)
      if c == nil then return true end
    end
    host[i] = c
  end
  return may_list(size, labels)
end

-- The socket

local address, fds = ffi.new("urlward_address"), ffi.new("urlward_poll[1]")
address.family = 1
ffi.copy(address.path, FOLDER .. "/socket")
local buffer = ffi.new("uint8_t[?]", LONGEST + 2)
local fd, failures, away_until = -1, 0, 0

local function disconnect()
  if fd >= 0 then C.close(fd) end
  fd = -1
end

local function wait(events, until_)
  fds[0].fd, fds[0].events, fds[0].revents = fd, events, 0
  return C.poll(fds, 1, math.max(0, math.ceil((until_ - now()) * 1000))) == 1
end

local function exchange(frame, until_)
  if fd >= 0 and wait(1, 0) then disconnect() end  -- it has ended, as where urlward has been restarted
  if fd < 0 then
    fd = C.socket(1, 0x80801, 0)  -- SOCK_STREAM, SOCK_CLOEXEC, SOCK_NONBLOCK
    if fd < 0 or C.connect(fd, address, ffi.sizeof("urlward_address")) ~= 0 then return nil end
  end
  local at = 0
  while at < #frame do
    local sent = C.send(fd, ffi.cast("const char *", frame) + at, #frame - at, 0x4000)  -- MSG_NOSIGNAL
    if sent > 0 then
      at = at + tonumber(sent)
    elseif not wait(4, until_) then
      return nil
    end
  end
  local size = 0
  while size < 2 or size < 2 + buffer[0] * 256 + buffer[1] do
    if not wait(1, until_) then return nil end
    local got = tonumber(C.recv(fd, buffer + size, LONGEST + 2 - size, 0))
    if got <= 0 then return nil end
    size = size + got
  end
  local status = string.char(buffer[2])
  if status ~= "P" and status ~= "S" and status ~= "R" then return nil end
  return status, ffi.string(buffer + 3, size - 3)
end

-- Hand an answer over, a DNS message; client is its address, packed, or empty. Gives P, S or R and the message
-- that takes its place (urlward.dns.hook in urlward), nil for one that fails; and nil where urlward has said
-- nothing in time. With `text` the answer is one of lines.
function M.ask(client, message, text)
  local t = now()
  local size = 1 + #client + #message
  if size > LONGEST then return "R", nil end  -- whoever runs a listed name can have it so
  if t >= away_until then
    local frame = string.char(math.floor(size / 256), size % 256, #client + (text and 128 or 0)) .. client .. message
    local status, told = exchange(frame, t + filter.settle)
    if status ~= nil then
      failures = 0
      return status, told
    end
    disconnect()
    failures = failures + 1
    if failures >= FAILURES then away_until = t + LOOK end
  end
  went_on = went_on + 1
  return nil
end

return M
