-- Asks for the requests of a file in turn; prints what wrk knows in the end as one line of JSON.
-- Arguments: the file, "close" for a new connection each, "count" to count statuses, the share of the
-- file to begin behind, so that what warmed up a cache is not asked for again, and "absolute" for the
-- absolute form, which an explicit proxy is asked in.

local requests, at, threads = {}, 0, {}
statuses = {}

function setup(thread) table.insert(threads, thread) end

function init(args)
  local form = args[5] == "absolute" and "http://%s%s" or "%.0s%s"
  local more = args[2] == "close" and "Connection: close\r\n" or ""
  for line in io.lines(args[1]) do
    local host, target = line:match("^(.-)\t(.*)$")
    requests[#requests + 1] = "GET " .. form:format(host, target) .. " HTTP/1.1\r\nHost: " .. host ..
      "\r\nUser-Agent: benchmark\r\nAccept: */*\r\n" .. more .. "\r\n"
  end
  at = math.floor(#requests * tonumber(args[4]))
  if args[3] == "count" then
    response = function(status) statuses[status] = (statuses[status] or 0) + 1 end
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency)
  local buckets, counts = {}, {}
  for i = 1, #latency do
    local value, count = latency(i)
    buckets[i] = string.format("[%d,%d]", value, count)
  end
  for _, thread in ipairs(threads) do
    for status, count in pairs(thread:get("statuses")) do
      counts[#counts + 1] = string.format('"%d":%d', status, count)
    end
  end
  local e = summary.errors
  print(string.format(
    '\nRESULT {"requests":%d,"microseconds":%d,"connect":%d,"read":%d,"write":%d,"timeout":%d,' ..
    '"status":%d,"latency":[%s],"statuses":{%s}}',
    summary.requests, summary.duration, e.connect, e.read, e.write, e.timeout, e.status,
    table.concat(buckets, ","), table.concat(counts, ",")))
end
