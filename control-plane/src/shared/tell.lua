-- Keeps what an instance says of a deployment, and tells the others, if it is news.
-- Keys: what is said; the highest fencing token that verdicts came under.
-- Arguments: the channel; how long it counts, ms; what is said, an object; the fencing token, 0 for what needs none.
-- Answer: 1 if it was told.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local fence = tonumber(ARGV[4])
if fence > 0 then
  if fence < tonumber(redis.call('GET', KEYS[2]) or 0) then
    return 0
  end
  redis.call('SET', KEYS[2], ARGV[4], 'PX', 30 * 86400000)
end
local said = cjson.decode(ARGV[3])
said['until_ms'] = now + tonumber(ARGV[2])
local known = redis.call('GET', KEYS[1])
if known and fence == 0 then
  -- What ends no later than what is known is no news.
  if said['until_ms'] < cjson.decode(known)['until_ms'] + 100 then
    return 0
  end
end
local text = cjson.encode(said)
redis.call('SET', KEYS[1], text, 'PX', ARGV[2])
redis.call('PUBLISH', ARGV[1], text)
return 1
