-- Counters in a shared dict: add, then verify, and take back what does not fit.
local _M = {}
_M.__index = _M

local MIN_OUTPUT = 16

function _M.new()
    return setmetatable({ dict = ngx.shared.counters }, _M)
end

-- The key of a limit's present window, made once per window.
local function key_of(l, now)
    if not l.window then return l.name end
    local number = (now - now % l.window) / l.window
    if l.number ~= number then
        l.number, l.key = number, l.name .. ":" .. number
    end
    return l.key
end

local function give_back(dict, keys, taken, count)
    for i = 1, count do
        dict:incr(keys[i], -taken[i])
    end
end

function _M:reserve(limits, input, output)
    local dict, now, count = self.dict, ngx.time(), #limits
    local keys, taken = {}, {}
    local least = math.min(MIN_OUTPUT, output)
    for i = 1, count do
        local l = limits[i]
        local key = key_of(l, now)
        local amount = l.unit + l.input * input + l.output * output
        local new, err = dict:incr(key, amount, 0, l.window and 2 * l.window or 0)
        if not new then
            give_back(dict, keys, taken, i - 1)
            return nil, nil, err
        end
        keys[i], taken[i] = key, amount
        local over = new - l.max
        if over > 0 then
            if l.output == 0 or output - over < least then
                give_back(dict, keys, taken, i)
                return nil, l, new - amount
            end
            output = output - over
        end
    end
    local reservation = { limits = limits, keys = keys, taken = taken, input = input, output = output }
    -- What was clamped later is given back to those before.
    for i = 1, count do
        local l = limits[i]
        local amount = l.unit + l.input * input + l.output * output
        if amount ~= taken[i] then
            dict:incr(keys[i], amount - taken[i])
            taken[i] = amount
        end
    end
    return reservation
end

function _M:settle(r, input, output)
    local dict, limits, keys, taken = self.dict, r.limits, r.keys, r.taken
    for i = 1, #limits do
        local l = limits[i]
        local used = (l.window and l.unit or 0) + l.input * input + l.output * output
        if used ~= taken[i] then
            dict:incr(keys[i], used - taken[i])
        end
    end
end

return _M
