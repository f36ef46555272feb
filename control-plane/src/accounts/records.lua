-- One thing to do with the records that all instances share.
-- Keys: the lineage, the clock, the table's hash; for `replace` the hash of every table.
-- A record is `<version> <end or -> <value>`. Expired ones are absent.
local what = ARGV[1]

local function present(key, now)
  local found = redis.call('HGET', KEYS[3], key)
  if not found then
    return nil
  end
  local version, ends = string.match(found, '^(%d+) (%S+) ')
  if ends ~= '-' and tonumber(ends) <= now then
    return nil
  end
  return version
end

if what == 'put' then
  -- key, value, end, expected (absent, any, a version), now, how long the table is kept at least (0: for ever)
  local key, value, ends, expected, now = ARGV[2], ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])
  local version = present(key, now)
  if expected == 'absent' and version or expected ~= 'absent' and expected ~= 'any' and expected ~= version then
    return '0'
  end
  local new = string.format('%.0f', redis.call('INCR', KEYS[2]))
  redis.call('HSET', KEYS[3], key, new .. ' ' .. ends .. ' ' .. value)
  if ARGV[7] ~= '0' then
    redis.call('PEXPIRE', KEYS[3], ARGV[7])
  end
  return new
elseif what == 'remove' then
  local there = redis.call('HDEL', KEYS[3], ARGV[2])
  if there > 0 then
    redis.call('INCR', KEYS[2])
  end
  return tostring(there)
elseif what == 'prune' then
  -- now
  local now, all = tonumber(ARGV[2]), redis.call('HGETALL', KEYS[3])
  for i = 1, #all, 2 do
    local ends = string.match(all[i + 1], '^%d+ (%S+) ')
    if ends and ends ~= '-' and tonumber(ends) <= now then
      redis.call('HDEL', KEYS[3], all[i])
    end
  end
  return '0'
elseif what == 'replace' then
  -- lineage, clock, then for each hash: number of records, then key and record of each.
  -- Only where there is no lineage, or the same and an earlier clock: somebody else may have been faster.
  local lineage, clock = redis.call('GET', KEYS[1]), tonumber(redis.call('GET', KEYS[2]) or 0)
  if lineage and (lineage ~= ARGV[2] or clock >= tonumber(ARGV[3])) then
    return '0'
  end
  redis.call('SET', KEYS[1], ARGV[2])
  redis.call('SET', KEYS[2], string.format('%.0f', math.max(clock, tonumber(ARGV[3]))))
  local at = 4
  for table = 3, #KEYS do
    redis.call('DEL', KEYS[table])
    local count = tonumber(ARGV[at])
    at = at + 1
    for _ = 1, count do
      redis.call('HSET', KEYS[table], ARGV[at], ARGV[at + 1])
      at = at + 2
    end
  end
  return '1'
end
return redis.error_reply('ERR unknown ' .. what)
