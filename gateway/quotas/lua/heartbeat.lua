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
local lease = read_lease(KEYS[2])
if not lease or lease.runs_out <= state.now then
    return {'gone', state.confirmed}
end
lease.runs_out, lease.mark = state.now + ARGV[3] * SECOND, max(lease.mark, tonumber(ARGV[2]))
write_lease(KEYS[2], lease, 'KEEPTTL')
local answer = {'running', state.confirmed}
for running = 3, #KEYS do
    call('ZADD', KEYS[running], 'XX', text(lease.runs_out), ARGV[1])
    answer[running] = call('ZCOUNT', KEYS[running], '(' .. text(state.now), '+inf')
end
call('HSET', KEYS[1], 'clock', text(state.now))
return answer
