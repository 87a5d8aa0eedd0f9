#!lua flags=allow-oom
-- Forget the events that the ledger has.
--
-- KEYS  1 state  2 events
-- ARGV  1 position, up to which it has them
-- Gives {"confirmed", position, seq}; {"closed"}.
local state = opened(KEYS[1])
if not state then
    return {'closed'}
end
local position = max(state.confirmed, tonumber(ARGV[1]))
call('HSET', KEYS[1], 'confirmed', text(position))
call('XTRIM', KEYS[2], 'MINID', '=', text(position + 1))
return {'confirmed', position, state.seq}
