#!lua flags=allow-oom
-- Put a running lease of an earlier epoch into one that is not open yet. The counters come from the ledger. Into one
-- that is open it comes too late for its slot, which may be another's by now.
--
-- KEYS  as in reserve.lua
-- ARGV  1 id  2 promised  3 mark  4 charged  5 at  6 opener  7 windows  8 about, as in the hash of the lease
--       9 window  10 ttl, seconds as in reserve.lua
--       11 clock, the latest time that is known
-- Gives {"restored"}.
local id, window = ARGV[1], tonumber(ARGV[9]) * SECOND
if redis.call('EXISTS', KEYS[3]) == 1 then
    return {'restored'}
end
local time = redis.call('TIME')
local now = max(tonumber(time[1]) * SECOND + tonumber(time[2]), tonumber(ARGV[11]))
local runs_out = text(now + tonumber(ARGV[10]) * SECOND)
redis.call('HSET', KEYS[3], 'p', ARGV[2], 'm', ARGV[3], 'd', 0, 'b', ARGV[4], 'at', ARGV[5], 'x', runs_out, 'o', ARGV[6],
    'w', 0, 'n', ARGV[7], 'a', ARGV[8], 's', 0)
if redis.call('EXISTS', KEYS[1]) == 0 then
    for running = 6, #KEYS, 2 do
        redis.call('ZADD', KEYS[running], runs_out, id)
    end
else
    -- Nobody looks for it when its process is gone.
    redis.call('EXPIRE', KEYS[3], 7 * 86400)
end
if window > 0 then
    -- Whether something was delivered before is not known: the download is never given back.
    local opener = redis.call('HGET', KEYS[4], 'opened')
    if not opener then
        redis.call('HSET', KEYS[4], 'opened', ARGV[6], 'at', ARGV[5], 'leases', 1, 'delivered', 1, 'octets', ARGV[4],
            'until', text(now + window))
    elseif opener == ARGV[6] then
        redis.call('HINCRBY', KEYS[4], 'leases', 1)
        redis.call('HINCRBY', KEYS[4], 'octets', ARGV[4])
    end
end
return {'restored'}
