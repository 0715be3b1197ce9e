-- Prints what wrk knows in the end as one line of JSON.

function done(summary, latency)
  local e = summary.errors
  print(string.format('\nRESULT {"requests":%d,"bytes":%d,"microseconds":%d,"failed":%d}',
    summary.requests, summary.bytes, summary.duration, e.connect + e.read + e.write + e.timeout + e.status))
end
