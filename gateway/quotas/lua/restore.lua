#!lua flags=allow-oom
-- Put a running lease of an earlier epoch into one that is not open yet. The counters come from the ledger. Into one
-- that is open it comes too late for its slot, which may be another's by now.
--
-- KEYS  as in reserve.lua
-- ARGV  1 id  2 promised  3 mark  4 charged  5 at  6 opener  7 windows  8 about, as in a lease, see common.lua
--       9 window  10 ttl, seconds as in reserve.lua
--       11 clock, the latest time that is known
-- Gives {"restored"}.
local id, charged, at, opener, window = ARGV[1], tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6], tonumber(ARGV[9])
if call('EXISTS', KEYS[3]) == 1 then
    return {'restored'}
end
local time = call('TIME')
local now = max(time[1] * SECOND + time[2], tonumber(ARGV[11]))
local lease = {
    promised = ARGV[2], mark = ARGV[3], downloads = 0, bytes = charged, at = at, runs_out = now + ARGV[10] * SECOND,
    whole = false, seq = 0, opener = opener, windows = ARGV[7], about = ARGV[8]
}
if call('EXISTS', KEYS[1]) == 0 then
    write_lease(KEYS[3], lease)
    for running = 6, #KEYS, 2 do
        call('ZADD', KEYS[running], text(lease.runs_out), id)
    end
else
    -- Nobody looks for it when its process is gone.
    write_lease(KEYS[3], lease, 'EX', 7 * 86400)
end
if window > 0 then
    local content = read_content(KEYS[4])
    if not content then
        -- Whether something was delivered before is not known: the download is never given back.
        content = {
            at = at, leases = 1, delivered = 1, octets = charged, ends = now + window * SECOND, whole = 0, free = 0,
            opener = opener, windows = '', about = ''
        }
        write_content(KEYS[4], content, window)
    elseif content.opener == opener then
        content.leases, content.octets = content.leases + 1, content.octets + charged
        write_content(KEYS[4], content, window)
    end
end
return {'restored'}
