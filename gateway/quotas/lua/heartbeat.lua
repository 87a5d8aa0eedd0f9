#!lua flags=allow-oom
-- Keep a lease, and have more bytes be sent. A lease that has run out stays so: its slot may be another's by now.
--
-- KEYS  1 state  2 lease, as in reserve.lua  3 … running, of each account
-- ARGV  1 id  2 mark: bytes that may be sent before the next heartbeat  3 ttl: seconds until then, at most
-- Gives {"running", confirmed, how many leases of each account are …}; {"gone", confirmed}; {"closed"}.
local state = opened(KEYS[1])
if not state then
    return {'closed'}
end
local lease = redis.call('HMGET', KEYS[2], 'm', 'x')
if not lease[1] or tonumber(lease[2]) <= state.now then
    return {'gone', state.confirmed}
end
local runs_out = text(state.now + tonumber(ARGV[3]) * SECOND)
redis.call('HSET', KEYS[2], 'x', runs_out, 'm', text(max(tonumber(lease[1]), tonumber(ARGV[2]))))
local answer = {'running', state.confirmed}
for running = 3, #KEYS do
    redis.call('ZADD', KEYS[running], 'XX', runs_out, ARGV[1])
    answer[running] = redis.call('ZCOUNT', KEYS[running], '(' .. text(state.now), '+inf')
end
redis.call('HSET', KEYS[1], 'clock', text(state.now))
return answer
