#!lua
-- Have a lease be ended that ended in the epoch before, whether its process, which may not know, restores it later or
-- did already.
--
-- KEYS  as in reserve.lua
-- ARGV  1 id  2 window  3 remember, seconds as in finish.lua
-- Gives {"dropped"}.
local lease = read_lease(KEYS[3])
call('SET', KEYS[3], 'ended', 'EX', ARGV[3])
for running = 6, #KEYS, 2 do
    call('ZREM', KEYS[running], ARGV[1])
end
local content = lease and read_content(KEYS[4])
if content and content.opener == lease.opener then
    content.leases = content.leases - 1
    write_content(KEYS[4], content, tonumber(ARGV[2]))
end
return {'dropped'}
