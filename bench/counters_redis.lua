-- Counters in Redis: one atomic script reserves, one pipeline settles from a timer after the answer.
local redis = require "nginx.redis"

local _M = {}
_M.__index = _M

local MIN_OUTPUT = 16

local function read(path)
    local file = assert(io.open(path, "rb"))
    local text = file:read("*a")
    file:close()
    return text
end

function _M.new(port)
    local folder = debug.getinfo(1, "S").source:match("^@(.*)/[^/]*$")
    return setmetatable({ port = port, script = read(folder .. "/reserve.redis.lua") }, _M)
end

function _M:connect()
    local red = redis:new()
    red:set_timeout(1000)
    local ok, err = red:connect("127.0.0.1", self.port)
    if not ok then return nil, err end
    return red
end

-- Both are made once per window and list of limits.
local function prepare(limits, now)
    if limits.until_time and now < limits.until_time then return limits end
    local keys, rest, until_time = {}, {}, math.huge
    for i, l in ipairs(limits) do
        keys[i] = l.name
        if l.window then
            local number = (now - now % l.window) / l.window
            keys[i] = l.name .. ":" .. number
            until_time = math.min(until_time, (number + 1) * l.window)
        end
        for _, value in ipairs { string.format("%.0f", l.max), l.unit, l.input, l.output, l.window and 2 * l.window or 0 } do
            rest[#rest + 1] = value
        end
    end
    -- A new table: reservations of the former window keep their keys.
    limits.prepared = { keys = keys, rest = rest, limits = limits }
    limits.until_time = until_time
    return limits
end

function _M:reserve(limits, input, output)
    local red, err = self:connect()
    if not red then return nil, nil, err end
    local p = prepare(limits, ngx.time()).prepared
    local count = #p.keys
    local arguments = { count }
    for i = 1, count do arguments[1 + i] = p.keys[i] end
    local at = 1 + count
    arguments[at + 1], arguments[at + 2], arguments[at + 3] = input, output, math.min(MIN_OUTPUT, output)
    for i = 1, #p.rest do arguments[at + 3 + i] = p.rest[i] end
    local answer
    if self.sha then
        answer, err = red:evalsha(self.sha, unpack(arguments))
    end
    if not answer and (not self.sha or (err and err:find("NOSCRIPT", 1, true))) then
        self.sha, err = red:script("load", self.script)
        if self.sha then
            answer, err = red:evalsha(self.sha, unpack(arguments))
        end
    end
    if not answer then return nil, nil, err end
    red:set_keepalive(60000, 256)
    local granted = answer[1]
    if granted < 0 then
        return nil, limits[answer[2]], answer[3]
    end
    return { prepared = p, input = input, granted = granted, output = granted }
end

local function settle(premature, self, r, input, output)
    local red, err = self:connect()
    if not red then
        ngx.log(ngx.ERR, "usage is lost: ", err)
        return
    end
    local keys, limits = r.prepared.keys, r.prepared.limits
    red:init_pipeline(#keys)
    for i = 1, #keys do
        local l = limits[i]
        local less = (l.window and 0 or -l.unit) + l.input * (input - r.input) + l.output * (output - r.granted)
        if less ~= 0 then red:incrby(keys[i], less) end
    end
    local ok
    ok, err = red:commit_pipeline()
    if not ok then
        ngx.log(ngx.ERR, "usage is lost: ", err)
        return
    end
    red:set_keepalive(60000, 256)
end

-- No network in the log phase.
function _M:settle(r, input, output)
    local ok, err = ngx.timer.at(0, settle, self, r, input, output)
    if not ok then ngx.log(ngx.ERR, "usage is lost: ", err) end
end

return _M
