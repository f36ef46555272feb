-- An AI gateway in Lua as one would write it with care: strict limits by reservation and settlement.
-- Counters are behind `reserve` and `settle` of counters_dict.lua or counters_redis.lua.
local cjson = require "cjson.safe"

local find, match, sub = string.find, string.match, string.sub
local concat = table.concat

local DEFAULT_OUTPUT = 256 -- output tokens reserved when the client names none
local WINDOW = 600 -- seconds; fixed windows

local _M = {}
_M.__index = _M

-- A limit counts unit + input * its `input` + output * its `output`. `window` nil: in flight, given back at the end.
local function limit(name, metric, max)
    local l = { name = name, metric = metric, max = max, unit = 0, input = 0, output = 0, window = WINDOW }
    if metric == "connections" then
        l.unit, l.window = 1, nil
    elseif metric == "requests" then
        l.unit = 1
    elseif metric == "input_tokens" then
        l.input = 1
    elseif metric == "output_tokens" then
        l.output = 1
    else
        l.input, l.output = 1, 1
    end
    return l
end

local NEVER = 1e11

-- The limits of tests/src/bin/bench/site.rs. Each channel's list for a model is made once.
local function channels()
    local global = limit("global:total", "total_tokens", NEVER)
    local models = {}
    for _, name in ipairs { "gpt-4o", "mock?tokens=200&chunks=200&interval=2ms" } do
        models[name] = limit("model:" .. name .. ":total", "total_tokens", NEVER)
    end
    local all = {}
    for i = 0, 99 do
        local code = string.format("wechat%03d", i)
        local lists = {}
        for name, per_model in pairs(models) do
            lists[name] = {
                limit(code .. ":connections", "connections", NEVER),
                limit(code .. ":requests", "requests", NEVER),
                limit(code .. ":input", "input_tokens", NEVER),
                limit(code .. ":output", "output_tokens", NEVER),
                limit(code .. ":total", "total_tokens", NEVER),
                limit(code .. ":" .. name .. ":total", "total_tokens", NEVER),
                per_model,
                global,
            }
        end
        all[code] = { enabled = true, lists = lists }
    end
    all.tight = { enabled = true, lists = { ["mock?tokens=20"] = { limit("tight:total", "total_tokens", 10000) } } }
    return all
end

function _M.new(counters, redis_port)
    return setmetatable({
        channels = channels(),
        counters = require("counters_" .. counters).new(redis_port),
    }, _M)
end

local function refuse(status, kind, message)
    ngx.status = status
    ngx.header["Content-Type"] = "application/json"
    ngx.print(cjson.encode { error = { message = message, type = kind, code = kind } })
    return ngx.exit(status)
end

local function refuse_limit(l, used)
    local now = ngx.time()
    local reset = l.window and l.window - now % l.window or 1
    ngx.header["Retry-After"] = reset
    ngx.header["x-ratelimit-limit-tokens"] = l.max
    ngx.header["x-ratelimit-remaining-tokens"] = math.max(0, l.max - used)
    ngx.header["x-ratelimit-reset-tokens"] = reset
    return refuse(429, "rate_limit_exceeded", "the limit " .. l.name .. " is reached")
end

local function read_body()
    ngx.req.read_body()
    local body = ngx.req.get_body_data()
    local path = not body and ngx.req.get_body_file()
    if path then
        local file = io.open(path, "rb")
        body = file and file:read("*a")
        if file then file:close() end
    end
    return body
end

function _M:access()
    local code = ngx.var.http_channelcode
    local channel = code and self.channels[code]
    if not channel or not channel.enabled then
        return refuse(401, "invalid_channel", "no such channel")
    end
    local body = read_body()
    local request = body and cjson.decode(body)
    if type(request) ~= "table" then
        return refuse(400, "invalid_body", "the body is not a JSON object")
    end
    local limits = channel.lists[request.model]
    if not limits then
        return refuse(403, "model_not_permitted", "the channel may not use this model")
    end
    local named = tonumber(request.max_tokens)
    -- A text never has more tokens than bytes, and the body is longer than its texts.
    local reservation, l, used = self.counters:reserve(limits, #body, named or DEFAULT_OUTPUT)
    if not reservation then
        if not l then
            return refuse(503, "counters_unavailable", used)
        end
        return refuse_limit(l, used)
    end
    reservation.stream = request.stream
    ngx.ctx.reservation = reservation

    local granted = reservation.output
    local options = request.stream_options
    if request.stream and not (type(options) == "table" and options.include_usage) then
        request.stream_options = { include_usage = true }
        request.max_tokens = granted
        ngx.req.set_body_data(cjson.encode(request))
    elseif not named and sub(body, 1, 1) == "{" then
        ngx.req.set_body_data(concat { '{"max_tokens":', granted, ",", sub(body, 2) })
    elseif named ~= granted then
        request.max_tokens = granted
        ngx.req.set_body_data(cjson.encode(request))
    end
end

function _M:body_filter()
    local reservation = ngx.ctx.reservation
    if not reservation then return end
    local piece = ngx.arg[1]
    if piece == "" then return end
    if reservation.stream then
        if find(piece, '"usage"', 1, true) then
            reservation.text = piece
        end
    elseif reservation.text then
        reservation.text = reservation.text .. piece
    else
        reservation.text = piece
    end
end

function _M:log()
    local reservation = ngx.ctx.reservation
    if not reservation then return end
    local input, output
    local text = reservation.text
    if text then
        input = tonumber(match(text, '"prompt_tokens"%s*:%s*(%d+)'))
        output = tonumber(match(text, '"completion_tokens"%s*:%s*(%d+)'))
    end
    if not input and ngx.status >= 400 then
        input, output = 0, 0
    end
    -- Nobody knows: what was reserved stays charged.
    self.counters:settle(reservation, input or reservation.input, output or reservation.output)
end

return _M
