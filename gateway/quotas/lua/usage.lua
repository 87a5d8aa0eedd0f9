#!lua flags=no-writes
-- What accounts have used in all.
--
-- KEYS  1 state  2, 3 … account and running of each account, as in reserve.lua
-- Gives {"used", now, downloads, bytes, running leases, …} with the last three for each; {"load", now, number of an
-- account …}; {"closed"}.
local state = opened(KEYS[1])
if not state then
    return {'closed'}
end
local answer, missing = {'used', state.now}, {'load', state.now}
for number = 1, (#KEYS - 1) / 2 do
    local account = redis.call('HMGET', KEYS[2 * number], 'd', 'b')
    if not account[1] then
        missing[#missing + 1] = number
    else
        answer[#answer + 1] = account[1]
        answer[#answer + 1] = account[2]
        answer[#answer + 1] = redis.call('ZCOUNT', KEYS[2 * number + 1], '(' .. text(state.now), '+inf')
    end
end
return #missing > 2 and missing or answer
