-- The lock of publications.
-- Keys: who holds it, the last token, the highest token that began to write each document.
local what, me = ARGV[1], ARGV[2]
local holder = redis.call('GET', KEYS[1])
if what == 'take' then
  -- me, how long, ms. Answer: the token, or 0.
  if holder then
    return 0
  end
  local time = redis.call('TIME')
  local clock = time[1] * 1000 + math.floor(time[2] / 1000)
  local token = math.max(clock, tonumber(redis.call('GET', KEYS[2]) or 0) + 1)
  redis.call('SET', KEYS[2], string.format('%.0f', token), 'PX', 30 * 86400000)
  redis.call('SET', KEYS[1], me, 'PX', ARGV[3])
  return token
elseif what == 'holds' then
  -- me, the token, how long, ms, then documents. Answer: 1 if it may write them.
  if holder ~= me then
    return 0
  end
  for at = 5, #ARGV do
    if tonumber(redis.call('HGET', KEYS[3], ARGV[at]) or 0) > tonumber(ARGV[3]) then
      return 0
    end
  end
  for at = 5, #ARGV do
    redis.call('HSET', KEYS[3], ARGV[at], ARGV[3])
  end
  redis.call('PEXPIRE', KEYS[3], 30 * 86400000)
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
  return 1
elseif what == 'leave' then
  if holder == me then
    redis.call('DEL', KEYS[1])
  end
  return 1
end
return redis.error_reply('ERR unknown ' .. what)
