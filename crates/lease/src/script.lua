-- One report of one instance on one limit: ledger.rs in Redis. KEYS: the limit's hash, the era of its tag.
-- ARGV: channel, limit, id, seq, have, want, need, standing, max, ttl, hold, standing_ttl; none: enter the era only.
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

local era_run, since = string.match(redis.call('GET', KEYS[2]) or '', '^(%w+) (%d+)$')
since = tonumber(since)
if era_run ~= run then
  since = now
  redis.call('SET', KEYS[2], string.format('%s %.0f', run, now), 'PX', 2592000000)
end
if #ARGV == 0 then
  redis.call('PEXPIRE', KEYS[2], 2592000000)
  return { since }
end

local channel, limit, id = ARGV[1], ARGV[2], ARGV[3]
local seq, have, want, need = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local standing, own_max, ttl = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
local hold, standing_ttl = tonumber(ARGV[11]), tonumber(ARGV[12])

local short
local before, max, others, live, stranded = 0, own_max, 0, 1, 0
local known_seq
local last = 0
local fields = redis.call('HGETALL', KEYS[1])
for i = 1, #fields, 2 do
  local name, n = fields[i], {}
  if name == 'short' then
    local who, lacks, till = string.match(fields[i + 1], '^(%w+) (%d+) (%d+)$')
    if now < tonumber(till) then
      short = { who, tonumber(lacks) }
    else
      redis.call('HDEL', KEYS[1], 'short')
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
      redis.call('HDEL', KEYS[1], name)
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
redis.call('HSET', KEYS[1], id, string.format('%.0f %.0f %.0f %.0f %.0f %.0f %.0f',
  seq, allowance, standing, now + ttl, now + ttl + hold, now + standing_ttl + hold, own_max))
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', math.max(last, now + ttl + hold, now + standing_ttl + hold) - now))

local lacking = short and short[1] ~= id and short[2] or 0
if quarantine > 0 then
  -- What others would return could be given to nobody.
elseif need > granted then
  redis.call('HSET', KEYS[1], 'short', string.format('%s %.0f %.0f', id, need - granted, now + 1000))
  redis.call('PUBLISH', channel, string.format('short %s %s %.0f %.0f', limit, id, need - granted, allowance))
elseif short and short[1] == id then
  redis.call('HDEL', KEYS[1], 'short')
elseif short and allowance < before and free > granted then
  redis.call('HDEL', KEYS[1], 'short')
  redis.call('PUBLISH', channel, string.format('room %s', limit))
end
return { 0, seq, granted, standing, max, free - granted, math.max(held - max, 0), lacking, live, stranded, quarantine }
