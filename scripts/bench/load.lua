-- wrk's side of load.py: POST bodies in turn, and print what was seen as one line of JSON.
-- Arguments: a file with the bodies, one a line.

local bodies, turn = {}, 0

function init(arguments)
  for line in io.lines(arguments[1]) do
    bodies[#bodies + 1] = line
  end
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
  wrk.body = bodies[1]
  if #bodies > 1 then
    request = function()
      turn = turn % #bodies + 1
      return wrk.format(nil, nil, nil, bodies[turn])
    end
  end
end

function done(summary, latency, _)
  local errors = summary.errors
  print(string.format(
    '{"requests": %d, "seconds": %.6f, "refused": %d, "broken": %d, ' ..
    '"p50": %.1f, "p95": %.1f, "p99": %.1f}',
    summary.requests, summary.duration / 1e6, errors.status,
    errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50), latency:percentile(95), latency:percentile(99)))
end
