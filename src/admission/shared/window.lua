-- A limit's window, as src/admission/window.rs has it: what was used in this
-- period, in the one before, and what is owed. Times are in microseconds.
--
-- KEYS[1] the window; KEYS[2] names the state that it belongs to
-- ARGV    state, limit, period, used since the last answer (below zero: given
--         back), gateways,
--         how much is wanted (0: no grant), how far the grant looks ahead,
--         used without a word and sliding out since, the gateway, and which of
--         its reports it is: one that is sent again has the same number, and
--         what was counted of it is not counted twice
-- answers {1, granted, remaining, until there is some, until there is all},
--         or {0}: the state is another one
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
    return {0}
end
local limit, period, spent = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local gateways, wanted, ahead = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local before, gateway, report = tonumber(ARGV[8]), ARGV[9], ARGV[10]
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local kept = redis.pcall('HMGET', KEYS[1], 'start', 'used', 'before', 'debt', gateway)
if kept.err then
    -- Not ours.
    redis.call('DEL', KEYS[1])
    kept = {}
end
-- A clock that steps back does not keep a limit used up.
local window = {start = math.min(tonumber(kept[1]) or now, now)}
window.used, window.before, window.debt = tonumber(kept[2]) or 0, tonumber(kept[3]) or 0, tonumber(kept[4]) or 0

-- What the gateway has said last, and what it was granted then.
local known, said, lease = string.match(kept[5] or '', '^(%d+) (%-?%d+) (%d+)$')
local net = spent - (tonumber(lease) or 0)
if known == report then
    if before > 0 then
        before = math.max(0, before - tonumber(said))
    else
        net = net - tonumber(said)
    end
end

local function roll(w, at)
    local passed = math.floor((at - w.start) / period)
    if passed <= 0 then
        return
    end
    w.start = w.start + period * passed
    local last = math.max(0, w.used + w.debt - limit * (passed - 1))
    w.before, w.debt, w.used = math.min(last, limit), math.max(0, last - limit), 0
end

local function counted(w, at)
    local passed = math.min(math.max(at - w.start, 0), period)
    return math.floor(w.before * (period - passed) / period) + w.used + w.debt
end

local function copy(w)
    return {start = w.start, used = w.used, before = w.before, debt = w.debt}
end

-- What is left at a time, if nothing is used until then.
local function left(at)
    local w = copy(window)
    roll(w, at)
    return math.max(0, limit - counted(w, at))
end

local function charge(units)
    if window.used == 0 and window.before == 0 and window.debt == 0 then
        window.start = now
    end
    window.used = window.used + units
end

roll(window, now)
charge(math.max(net, 0))
if net < 0 then
    for _, from in ipairs({'used', 'debt', 'before'}) do
        local taken = math.min(-net, window[from])
        window[from] = window[from] - taken
        net = net + taken
    end
end
if before > 0 then
    local all = counted(window, now) + before
    window = {start = now, used = 0, before = math.min(all, limit), debt = math.max(0, all - limit)}
end

local granted = 0
if wanted > 0 then
    local there = left(now + ahead)
    granted = math.min(there, math.max(math.ceil(there / gateways), wanted))
    charge(granted)
end

local remaining = left(now)
local some = 0
if remaining == 0 then
    local w, at = copy(window), now
    local spent = w.used + w.debt
    if spent >= limit then
        at = w.start + period * math.floor(spent / limit)
        roll(w, at)
        if w.used + w.debt >= limit then
            at = w.start + period
            roll(w, at)
        end
    end
    local slide = math.max(0, w.before - (limit - math.min(w.used + w.debt, limit)))
    local slid = w.before > 0 and slide / w.before or 0
    some = math.max(at, w.start + period * math.min(slid, 1) + 1) - now
end

local owed = window.used + window.debt
local periods = 0
if owed > 0 then
    periods = 1 + math.ceil(owed / limit)
elseif window.before > 0 then
    periods = 1
end
local all = math.max(0, window.start + period * periods - now)
if periods == 0 then
    redis.call('DEL', KEYS[1])
else
    local function text(number)
        return string.format('%.0f', number)
    end
    if redis.call('HLEN', KEYS[1]) > 128 then
        -- Gateways that came and went.
        redis.call('DEL', KEYS[1])
    end
    redis.call('HSET', KEYS[1], 'start', text(window.start), 'used', text(window.used),
        'before', text(window.before), 'debt', text(window.debt),
        gateway, report .. ' ' .. text(spent + tonumber(ARGV[8])) .. ' ' .. text(granted))
    redis.call('PEXPIRE', KEYS[1], math.ceil(math.min(all, 86400000000) / 1000) + 1000)
end
return {1, granted, remaining, math.ceil(some), math.ceil(all)}
