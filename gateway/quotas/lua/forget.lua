#!lua flags=allow-oom
-- Have accounts be loaded anew, since the ledger has learnt of them what did not go through Redis. What anybody read
-- there before must not be loaded any more.
--
-- KEYS  1 state  2 … accounts
-- Gives {"forgotten"}; {"closed"}.
local state = opened(KEYS[1])
if not state then
    return {'closed'}
end
call('HINCRBY', KEYS[1], 'forgotten', 1)
call('DEL', unpack(KEYS, 2))
return {'forgotten'}
