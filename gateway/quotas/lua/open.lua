#!lua
-- Open an epoch on this server; once, however often it is asked.
--
-- KEYS  1 state
-- ARGV  1 clock, the latest time that is known
--       2 ledger, whose epoch it is
-- Gives {"open"}; {"closed"} if it was opened on another run of the server, or for another ledger.
if call('EXISTS', KEYS[1]) == 0 then
    local run = string.match(call('INFO', 'replication'), 'master_replid:(%w+)')
    call('HSET', KEYS[1], 'run', run, 'seq', 0, 'confirmed', 0, 'clock', ARGV[1], 'ledger', ARGV[2])
end
local open = opened(KEYS[1]) and call('HGET', KEYS[1], 'ledger') == ARGV[2]
return {open and 'open' or 'closed'}
