-- Writes values of one ledger's usage, if the record of that ledger is the one that the writer knows.
-- Keys: the records, the channels, then for each part its hash and the index of its channel's hashes.
-- Arguments: the ledger; the record's token that is expected, empty for none; the new token; the new position, empty to keep the
-- former; how long things are kept, ms; then for each part: channel, member and score in the index (an empty member: no index), how
-- long the hash is kept, how long the index, from which score on the index is kept, number of fields, then field and value of each.
-- Answer: 1 or 0, whether it was written; the record as it is now.
local record = redis.call('HGET', KEYS[1], ARGV[1])
local position, token = '0', ''
if record then
  position, token = string.match(record, '^(%d+) (%x*)$')
end
if token ~= ARGV[2] then
  return {0, record or ''}
end
local at, key, added = 6, 3, {}
while ARGV[at] do
  local channel, member, score = ARGV[at], ARGV[at + 1], ARGV[at + 2]
  local ttl, index_ttl, from, count = ARGV[at + 3], ARGV[at + 4], ARGV[at + 5], tonumber(ARGV[at + 6])
  local new = redis.call('HSET', KEYS[key], unpack(ARGV, at + 7, at + 6 + 2 * count))
  if new > 0 or added[channel] then
    added[channel] = true
    redis.call('PEXPIRE', KEYS[key], ttl)
    if member ~= '' then
      redis.call('ZADD', KEYS[key + 1], score, member)
      redis.call('ZREMRANGEBYSCORE', KEYS[key + 1], '-inf', '(' .. from)
      redis.call('PEXPIRE', KEYS[key + 1], index_ttl)
    end
    redis.call('SADD', KEYS[2], channel)
  end
  at, key = at + 7 + 2 * count, key + 2
end
if next(added) then
  redis.call('PEXPIRE', KEYS[1], ARGV[5])
  redis.call('PEXPIRE', KEYS[2], ARGV[5])
end
if ARGV[4] ~= '' then
  position = ARGV[4]
end
record = position .. ' ' .. ARGV[3]
redis.call('HSET', KEYS[1], ARGV[1], record)
return {1, record}
