#!lua
-- Open an epoch on this server; once, however often it is asked.
--
-- KEYS  1 state
-- ARGV  1 clock, the latest time that is known
-- Gives {"open"}; {"closed"} if it was opened on another run of the server.
if redis.call('EXISTS', KEYS[1]) == 0 then
    local run = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
    redis.call('HSET', KEYS[1], 'run', run, 'seq', 0, 'confirmed', 0, 'clock', ARGV[1])
end
return {opened(KEYS[1]) and 'open' or 'closed'}
