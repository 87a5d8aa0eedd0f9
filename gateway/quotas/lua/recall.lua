#!lua
-- Know of downloads that the ledger has from before the epoch, so that what resumes one of them is one with it.
--
-- KEYS  1 state  2, 3 … content of each, as in reserve.lua
-- ARGV  four of each: opener, at, octets, ends, all as in a content, see common.lua
-- Gives {"recalled"}; {"closed"}.
local state = opened(KEYS[1])
if not state then
    return {'closed'}
end
for number = 2, #KEYS do
    local key, first = KEYS[number], 4 * number - 7
    local left = ARGV[first + 3] - state.now
    if left > 0 and call('EXISTS', key) == 0 then
        local content = {
            at = ARGV[first + 1], leases = 0, delivered = 1, octets = ARGV[first + 2], ends = ARGV[first + 3], whole = 0,
            free = 0, opener = ARGV[first], windows = '', about = ''
        }
        write_content(key, content, math.ceil(left / SECOND))
    end
end
return {'recalled'}
