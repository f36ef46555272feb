-- KEYS: counters. ARGV: input, output, least output, then for each key: maximum, unit, input, output, seconds it lives (0: for ever).
-- Returns {granted output} or {-1, number of the limit, what is used of it}.
local input, output, least = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local used = redis.call('MGET', unpack(KEYS))
for i = 1, #KEYS do
    local at = 4 + (i - 1) * 5
    local now = tonumber(used[i] or 0) or 0
    local left = tonumber(ARGV[at]) - now - tonumber(ARGV[at + 1]) - tonumber(ARGV[at + 2]) * input
    if ARGV[at + 3] == '1' then
        if left < least then return { -1, i, now } end
        if left < output then output = left end
    elseif left < 0 then
        return { -1, i, now }
    end
end
for i = 1, #KEYS do
    local at = 4 + (i - 1) * 5
    local amount = tonumber(ARGV[at + 1]) + tonumber(ARGV[at + 2]) * input + tonumber(ARGV[at + 3]) * output
    redis.call('INCRBY', KEYS[i], amount)
    if not used[i] and ARGV[at + 4] ~= '0' then redis.call('EXPIRE', KEYS[i], ARGV[at + 4]) end
end
return { output }
