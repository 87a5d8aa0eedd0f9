#!lua flags=no-writes
-- The leases of a tenant that have run out, 100 at most.
--
-- KEYS  1 state  2 running, of the tenant's account
-- Gives {"found", id, …}; {"closed"}.
local state = opened(KEYS[1])
if not state then
    return {'closed'}
end
local found = call('ZRANGE', KEYS[2], '-inf', text(state.now), 'BYSCORE', 'LIMIT', 0, 100)
return {'found', unpack(found)}
