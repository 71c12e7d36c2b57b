-- The generations that a tenant runs at one time, by gateway: what each has
-- been granted, and when it said so last. Times are in microseconds.
--
-- KEYS[1] the gateways' places; KEYS[2] names the state that they belong to
-- ARGV    state, limit, the gateway, what it runs, gateways, whether more are
--         wanted, for how long a silent gateway keeps its places
-- answers {1, granted, free}, or {0}: the state is another one
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
    return {0}
end
local limit, gateway, running = tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local gateways, wants, silent = tonumber(ARGV[5]), ARGV[6] == '1', tonumber(ARGV[7])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local others = 0
local kept = redis.pcall('HGETALL', KEYS[1])
if kept.err then
    -- Not ours.
    redis.call('DEL', KEYS[1])
    kept = {}
end
for i = 1, #kept, 2 do
    if kept[i] ~= gateway then
        local places, at = string.match(kept[i + 1], '^(%d+) (%d+)$')
        if places and math.abs(now - tonumber(at)) < silent then
            others = others + tonumber(places)
        else
            redis.call('HDEL', KEYS[1], kept[i])
        end
    end
end

local free = math.max(0, limit - others)
local granted = running
if wants and free > running then
    granted = running + math.ceil((free - running) / gateways)
end
if granted > 0 then
    redis.call('HSET', KEYS[1], gateway, string.format('%.0f %.0f', granted, now))
else
    redis.call('HDEL', KEYS[1], gateway)
end
redis.call('PEXPIRE', KEYS[1], math.ceil(silent / 1000))
return {1, granted, math.max(0, free - granted)}
