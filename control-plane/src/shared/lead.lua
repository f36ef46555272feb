-- Takes or renews the lead, or says who has it.
-- Keys: the holder, the last fencing token. Arguments: who asks; how long the lead lasts, ms.
-- Answer: the fencing token if it is theirs, otherwise 0; who has it.
local holder = redis.call('GET', KEYS[1])
if holder then
  local fence, who = string.match(holder, '^(%d+) (.*)$')
  if who ~= ARGV[1] then
    return {0, who or holder}
  end
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return {tonumber(fence), who}
end
-- Tokens grow even after Redis has lost everything: they are not below its clock.
local time = redis.call('TIME')
local clock = time[1] * 1000 + math.floor(time[2] / 1000)
local fence = math.max(clock, tonumber(redis.call('GET', KEYS[2]) or 0) + 1)
fence = string.format('%.0f', fence)
redis.call('SET', KEYS[2], fence, 'PX', 30 * 86400000)
redis.call('SET', KEYS[1], fence .. ' ' .. ARGV[1], 'PX', ARGV[2])
return {tonumber(fence), ARGV[1]}
