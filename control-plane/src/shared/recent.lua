-- KEYS: the instance's List, newest first; the Sorted Set of lists by the time of their last lines.
-- ARGV: name of the list; number of the newest line that the caller knows to be there, 0 for none; most lines; milliseconds
-- after which an untouched list goes; lines, the oldest first, each "<number> <JSON>".
-- Writes only behind the line that the caller knows: a command that comes late or twice changes nothing.
-- Returns the number of the newest line that is there.
local newest = redis.call('LINDEX', KEYS[1], 0)
newest = newest and string.match(newest, '^%d+') or '0'
if newest ~= ARGV[2] then
  return newest
end
for at = 5, #ARGV do
  redis.call('LPUSH', KEYS[1], ARGV[at])
  newest = string.match(ARGV[at], '^%d+')
end
redis.call('LTRIM', KEYS[1], 0, ARGV[3] - 1)
redis.call('PEXPIRE', KEYS[1], ARGV[4])
local now = redis.call('TIME')
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now[1] - ARGV[4] / 1000)
redis.call('ZADD', KEYS[2], now[1], ARGV[1])
redis.call('PEXPIRE', KEYS[2], ARGV[4])
return newest
