-- Reports of one instance on limits of one tag: ledger.rs in Redis. KEYS: the tag's era, the limits' hashes.
-- ARGV: channel, id, then for each limit its name, seq, have, want, need, standing, max, ttl, hold, standing_ttl; none: enter the era only.
-- Answers a list for each limit.
-- A field of the hash is an instance: "seq allowance standing until hold_until standing_until max"; "short" is "id want until".
local function clock()
  local time = redis.call('TIME')
  local info = redis.pcall('INFO', 'server')
  local run = type(info) == 'string' and string.match(info, 'run_id:(%w+)') or 'unknown'
  return time[1] * 1000 + math.floor(time[2] / 1000), run
end
local now, run = clock()

-- Redis below 5 replicates scripts as text; this one reads a clock.
if redis.replicate_commands then redis.replicate_commands() end

local era_run, since = string.match(redis.call('GET', KEYS[1]) or '', '^(%w+) (%d+)$')
since = tonumber(since)
if era_run ~= run then
  since = now
  redis.call('SET', KEYS[1], string.format('%s %.0f', run, now), 'PX', 2592000000)
end
if #ARGV == 0 then
  redis.call('PEXPIRE', KEYS[1], 2592000000)
  return { since }
end

local channel, id = ARGV[1], ARGV[2]

local function report(key, limit, seq, have, want, need, standing, own_max, ttl, hold, standing_ttl)
  local short
  local before, max, others, live, stranded = 0, own_max, 0, 1, 0
  local known_seq
  local last = 0
  local fields = redis.call('HGETALL', key)
  for i = 1, #fields, 2 do
    local name, n = fields[i], {}
    if name == 'short' then
      local who, lacks, till = string.match(fields[i + 1], '^(%w+) (%d+) (%d+)$')
      if now < tonumber(till) then
        short = { who, tonumber(lacks) }
      else
        redis.call('HDEL', key, 'short')
      end
    else
      for word in string.gmatch(fields[i + 1], '%d+') do n[#n + 1] = tonumber(word) end
      local counted = 0
      if now < n[5] then
        counted = math.max(n[2], n[3])
      elseif now < n[6] then
        counted = n[3]
      end
      if now >= n[4] and counted == 0 then
        redis.call('HDEL', key, name)
      elseif name == id then
        known_seq, before = n[1], counted
      else
        others = others + counted
        last = math.max(last, n[4], n[5], n[6])
        if now < n[4] then
          max, live = math.min(max, n[7]), live + 1
        else
          stranded = stranded + counted
        end
      end
    end
  end
  if known_seq and seq <= known_seq then
    return { 1, known_seq, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
  end

  local held = others + have
  local quarantine = math.max(since + ttl - now, 0)
  local free = math.max(max - held, 0)
  local granted = quarantine > 0 and 0 or math.min(want, free)
  local allowance = have + granted
  standing = math.min(standing, allowance)
  redis.call('HSET', key, id, string.format('%.0f %.0f %.0f %.0f %.0f %.0f %.0f',
    seq, allowance, standing, now + ttl, now + ttl + hold, now + standing_ttl + hold, own_max))
  redis.call('PEXPIRE', key, string.format('%.0f', math.max(last, now + ttl + hold, now + standing_ttl + hold) - now))

  local lacking = short and short[1] ~= id and short[2] or 0
  if quarantine > 0 then
    -- What others would return could be given to nobody.
  elseif need > granted then
    redis.call('HSET', key, 'short', string.format('%s %.0f %.0f', id, need - granted, now + 1000))
    redis.call('PUBLISH', channel, string.format('short %s %s %.0f %.0f', limit, id, need - granted, allowance))
  elseif short and short[1] == id then
    redis.call('HDEL', key, 'short')
  elseif short and allowance < before and free > granted then
    redis.call('HDEL', key, 'short')
    redis.call('PUBLISH', channel, string.format('room %s', limit))
  end
  return { 0, seq, granted, standing, max, free - granted, math.max(held - max, 0), lacking, live, stranded, quarantine }
end

local answers = {}
for k = 2, #KEYS do
  local at, numbers = 3 + 10 * (k - 2), {}
  for n = 1, 9 do numbers[n] = tonumber(ARGV[at + n]) end
  answers[k - 1] = report(KEYS[k], ARGV[at], unpack(numbers))
end
return answers
