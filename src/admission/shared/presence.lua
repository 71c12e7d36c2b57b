-- Which gateways there are.
--
-- KEYS[1] the gateways; KEYS[2] names the state that all limits belong to
-- ARGV    the gateway, a name for the state if it has none, and for how long a
--         silent gateway is counted, in microseconds (0: it leaves)
-- answers {the state's name, gateways}
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local silent = tonumber(ARGV[3])
if silent > 0 then
    redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[1])
    redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('(%.0f', now - silent))
    -- Said by a clock that has stepped back since.
    redis.call('ZREMRANGEBYSCORE', KEYS[1], string.format('(%.0f', now + silent), '+inf')
else
    redis.call('ZREM', KEYS[1], ARGV[1])
end
redis.call('SET', KEYS[2], ARGV[2], 'NX')
return {redis.call('GET', KEYS[2]), redis.call('ZCARD', KEYS[1])}
