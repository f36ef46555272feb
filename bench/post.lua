-- For wrk: posts the file named by the first argument; further arguments are header lines `name=value`.
-- Prints one line: requests, microseconds, failures, p50 and p99 of the latency in microseconds.
function init(args)
    local file = assert(io.open(args[1], "rb"))
    wrk.method = "POST"
    wrk.body = file:read("*a")
    file:close()
    wrk.headers["Content-Type"] = "application/json"
    for i = 2, #args do
        local name, value = args[i]:match("^([^=]+)=(.*)$")
        wrk.headers[name] = value
    end
end

function done(summary, latency)
    local e = summary.errors
    io.write(string.format("BENCH %d %d %d %.0f %.0f\n", summary.requests, summary.duration,
        e.connect + e.read + e.write + e.timeout + e.status, latency:percentile(50), latency:percentile(99)))
end
