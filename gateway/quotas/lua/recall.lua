#!lua
-- Know of a download that the ledger has from before the epoch, so that what resumes it is one with it.
--
-- KEYS  1 state  2 content, as in reserve.lua
-- ARGV  1 opened  2 at  3 octets  4 until, all as in the hash of the content
-- Gives {"recalled"}; {"closed"}.
local state = opened(KEYS[1])
if not state then
    return {'closed'}
end
local left = tonumber(ARGV[4]) - state.now
if left > 0 and redis.call('EXISTS', KEYS[2]) == 0 then
    redis.call('HSET', KEYS[2], 'opened', ARGV[1], 'at', ARGV[2], 'leases', 0, 'delivered', 1, 'octets', ARGV[3],
        'until', ARGV[4])
    redis.call('EXPIRE', KEYS[2], math.ceil(left / SECOND) + 60)
end
return {'recalled'}
