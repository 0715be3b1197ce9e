-- Hook for Knot Resolver 5: hands answers that may concern urlward's lists to urlward, before a client has them.
--
-- In kresd.conf, behind all other modules (also policies that load one, such as dns64 and renumber):
--
--     package.path = '/usr/share/urlward/hooks/?.lua;' .. package.path
--     modules.load('urlward')
--
-- For where urlward's folder is, see urlward_hook.lua.

local bit, ffi = require("bit"), require("ffi")
local hook = require("urlward_hook")

local CNAME, DNAME, SVCB, HTTPS = 5, 39, 64, 65
local NOERROR, SERVFAIL, TC = 0, 2, 2

hook.log = function(line) log_error(ffi.C.LOG_GRP_MODULE, "%s", line) end

local M = { layer = {} }

local function may_list(answer)
  if hook.may_list(answer.wire + 12) then return true end
  for _, section in ipairs({ kres.section.ANSWER, kres.section.ADDITIONAL }) do
    local records = answer.sections[section]
    for i = 0, records.count - 1 do
      local rr = records.pkt.rr + records.pos + i
      if hook.may_list(rr._owner) then return true end
      local kind = rr.type
      if kind == CNAME or kind == DNAME then
        if hook.may_list(rr:rdata_pt(0).data) then return true end
      elseif kind == SVCB or kind == HTTPS then
        for j = 0, rr:rdcount() - 1 do
          if hook.may_list(rr:rdata_pt(j).data + 2) then return true end
        end
      end
    end
  end
  return false
end

-- Leave of an answer its question, and a code.
local function cut(answer, code)
  local wire, at = answer.wire, 12
  while wire[at] ~= 0 do at = at + wire[at] + 1 end
  wire[3] = bit.bor(bit.band(wire[3], 0x90), code)
  for i = 6, 11 do wire[i] = 0 end
  answer.size = at + 5
end

local function fail(answer) cut(answer, SERVFAIL) end

-- Have the client ask over TCP: nothing is compressed in what is to be told, so more does not fit.
local function truncate(answer)
  cut(answer, NOERROR)
  answer.wire[2] = bit.bor(answer.wire[2], TC)
end

local function take(req)
  local answer, client = req.answer, req.qsource.addr
  if answer == nil or client == nil or answer.size < 17 or not may_list(answer) then return end
  local status, told = hook.ask(ffi.string(client:ip(), client:len()), ffi.string(answer.wire, answer.size))
  if status == nil then
    if hook.closed then fail(answer) end
  elseif status ~= "P" then
    if told == nil then
      fail(answer)
    elseif #told > answer.max_size then
      truncate(answer)
    else
      ffi.copy(answer.wire, told, #told)
      answer.size = #told
    end
  end
end

M.layer.finish = function(state, req)
  hook.look()
  local ok, why = pcall(take, req)
  if not ok then
    hook.say("bug", "a bug in its hook: " .. tostring(why):gsub("^.*/", ""))
    if req.answer ~= nil then fail(req.answer) end
  end
  return state
end

return M
