-- Hook for PowerDNS Recursor 5: hands answers that may concern urlward's lists to urlward, before a client has
-- them. In recursor.yml:
--
--     recursor:
--       lua_dns_script: /usr/share/urlward/hooks/powerdns.lua
--
-- For where urlward's folder is, see urlward_hook.lua. URLWARD_HOOKS in the environment names the folder of these
-- scripts, where they are somewhere else.

local ffi = require("ffi")
-- A script is not told where it is.
package.path = (os.getenv("URLWARD_HOOKS") or "/usr/share/urlward/hooks") .. "/?.lua;" .. package.path
local hook = require("urlward_hook")

ffi.cdef [[
typedef struct pdns_ffi_param pdns_ffi_param_t;
void pdns_ffi_param_set_tag(pdns_ffi_param_t *, unsigned int);
]]

hook.log = function(line) pdnslog(line, pdns.loglevels.Error) end

-- Packets that were cached under another filter are not found under this tag.
function gettag_ffi(query)
  hook.look()
  ffi.C.pdns_ffi_param_set_tag(query, hook.tag)
end

local function may_list(dq, records)
  if hook.may_list_text(dq.qname:toString()) then return true end
  for _, record in ipairs(records) do
    if hook.may_list_text(record.name:toString()) then return true end
    local kind = record.type
    if kind == pdns.CNAME or kind == pdns.DNAME then
      if hook.may_list_text(record:getContent()) then return true end
    elseif kind == pdns.HTTPS or kind == pdns.SVCB then
      if hook.may_list_text(record:getContent():match("^%d+ (%S+)") or "*") then return true end
    end
  end
  return false
end

local function text_of(dq, records)
  local lines = { dq.qname:toString() .. " " .. dq.qtype .. " " .. dq.rcode }
  for _, record in ipairs(records) do
    if record.type ~= pdns.OPT then
      table.insert(lines, string.format("%d %s %d %d %s", record.place, record.name:toString(), record.ttl, record.type, record:getContent()))
    end
  end
  return table.concat(lines, "\n")
end

-- Have the records and the code that lines of text say take the place of an answer's.
local function replace(dq, text)
  local code, lines = text:match("^(%d+)\n?(.*)$")
  dq:setRecords({})
  dq.rcode = tonumber(code)
  dq.validationState = pdns.validationstates.Insecure  -- no signature holds for what has changed
  for section, owner, ttl, kind, content in lines:gmatch("(%d) (%S+) (%d+) (%d+) ([^\n]+)") do
    dq:addRecord(tonumber(kind), content, tonumber(section), tonumber(ttl), owner)
  end
end

local function fail(dq)
  dq:setRecords({})
  dq.rcode = pdns.SERVFAIL
end

local function take(dq)
  local records = dq:getRecords()
  if not may_list(dq, records) then return false end
  dq.variable = true  -- each goes this way, none from the packet cache
  local status, told = hook.ask(dq.remoteaddr:getRaw(), text_of(dq, records), true)
  if status == nil then
    if hook.closed then fail(dq) end
    return hook.closed
  end
  if status == "P" then return false end
  if told == nil then fail(dq) else replace(dq, told) end
  return true
end

function postresolve(dq)
  local ok, changed = pcall(take, dq)
  if not ok then
    hook.say("bug", "a bug in its hook: " .. tostring(changed):gsub("^.*/", ""))
    dq.variable = true
    fail(dq)
    return true
  end
  return changed
end
