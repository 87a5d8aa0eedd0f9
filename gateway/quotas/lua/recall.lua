#!lua
-- Know of downloads that the ledger has from before the epoch, so that what resumes one of them is one with it.
--
-- KEYS  1 state  2, 3 … content of each, as in reserve.lua
-- ARGV  four of each: opened, at, octets, until, all as in the hash of the content
-- Gives {"recalled"}; {"closed"}.
local state = opened(KEYS[1])
if not state then
    return {'closed'}
end
for number = 2, #KEYS do
    local key, first = KEYS[number], 4 * number - 7
    local left = tonumber(ARGV[first + 3]) - state.now
    if left > 0 and redis.call('EXISTS', key) == 0 then
        redis.call('HSET', key, 'opened', ARGV[first], 'at', ARGV[first + 1], 'leases', 0, 'delivered', 1,
            'octets', ARGV[first + 2], 'until', ARGV[first + 3])
        redis.call('EXPIRE', key, math.ceil(left / SECOND) + 60)
    end
end
return {'recalled'}
