-- The queue in Redis. Every change of it is one call of this script, so that nothing is ever half
-- moved: a crash leaves an entry where it was or where it should be.
--
-- KEYS: stream, delayed set, dead letters; for `enqueue` also the job's marker.
-- ARGV: operation, then its arguments. A number that is no count is in milliseconds.
--
-- An entry is a flat list of names and values, as a stream holds it: job, message, attempt,
-- enqueued, stalled, and first, the reason of the first failure. In the delayed set it is that list
-- as JSON, all strings.

local stream, delayed, dead = KEYS[1], KEYS[2], KEYS[3]
local group = 'workers'

-- What one call promotes or looks through at most.
local BATCH = 100

-- What one call takes away from silent holders at most.
local CLAIMS = 50

local function now()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function text(number)
    return string.format('%.0f', number)
end

local function get(entry, name)
    for at = 1, #entry, 2 do
        if entry[at] == name then return entry[at + 1] end
    end
    return nil
end

local function set(entry, name, value)
    for at = 1, #entry, 2 do
        if entry[at] == name then
            entry[at + 1] = value
            return
        end
    end
    entry[#entry + 1] = name
    entry[#entry + 1] = value
end

local function add(entry)
    return redis.call('XADD', stream, '*', unpack(entry))
end

local function remove(id)
    redis.call('XACK', stream, group, id)
    redis.call('XDEL', stream, id)
end

local function add_later(entry, after)
    if after <= 0 then return add(entry) end
    redis.call('ZADD', delayed, text(now() + after), cjson.encode(entry))
end

local function bury(id, entry, reason, attempts)
    set(entry, 'attempts', text(attempts))
    set(entry, 'reason', reason)
    set(entry, 'died', text(now()))
    redis.call('XADD', dead, '*', unpack(entry))
    remove(id)
end

-- The entry, if this consumer holds it. An entry that was taken away has another id by then.
local function held(consumer, id)
    local pending = redis.pcall('XPENDING', stream, group, id, id, 1, consumer)
    -- Without the group (Redis lost its data) nobody holds anything.
    if pending.err or #pending == 0 then return nil end
    local found = redis.call('XRANGE', stream, id, id)
    if #found == 0 then
        redis.call('XACK', stream, group, id)
        return nil
    end
    return found[1][2]
end

local operations = {}

-- 1 if it is new, 0 if the job was enqueued within the marker's lifetime.
function operations.enqueue(job, message, lifetime)
    if not redis.call('SET', KEYS[4], '1', 'NX', 'PX', lifetime) then return 0 end
    add({ 'job', job, 'message', message, 'attempt', '1', 'enqueued', text(now()), 'stalled', '0' })
    return 1
end

-- Before a consumer reads: the group exists, what is due is in the stream, and what the server has
-- assigned to the consumer without an answer that arrived is given to it now.
-- The time until the next delayed entry (-1: none), those of the ids that follow that the consumer
-- still holds, and the entries that it holds beyond them.
function operations.prepare(consumer, most, ...)
    local made = redis.pcall('XGROUP', 'CREATE', stream, group, '0', 'MKSTREAM')
    if made.err and not string.find(made.err, 'BUSYGROUP', 1, true) then return made end
    local time = now()
    for _, member in ipairs(redis.call('ZRANGE', delayed, '-inf', text(time), 'BYSCORE', 'LIMIT', 0, BATCH)) do
        add(cjson.decode(member))
        redis.call('ZREM', delayed, member)
    end
    local first = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')
    local due = -1
    if first[2] then due = math.max(0, tonumber(first[2]) - time) end

    local known = {}
    for _, id in ipairs({ ... }) do known[id] = true end
    local ids, orphans = {}, {}
    local looked_at = select('#', ...) + BATCH
    local pending = redis.call('XPENDING', stream, group, '-', '+', looked_at, consumer)
    for _, item in ipairs(pending) do
        local id = item[1]
        if known[id] then
            ids[#ids + 1] = id
        elseif #orphans < tonumber(most) then
            local found = redis.call('XRANGE', stream, id, id)
            if #found == 0 then
                redis.call('XACK', stream, group, id)
            else
                redis.call('XCLAIM', stream, group, consumer, 0, id, 'JUSTID')
                orphans[#orphans + 1] = found[1]
            end
        end
    end
    -- Not all was looked at, so none of the known ones is known to be gone.
    if #pending == looked_at then ids = { ... } end
    return { due, ids, orphans }
end

-- Takes entries away from holders that said nothing for a lease. Each is added again, under a new
-- id, for anybody, and counts one more of them.
-- The next cursor, and how many were added again. Consumers that were idle for long and hold
-- nothing are forgotten at the end of a round.
function operations.reclaim(consumer, lease, cursor, forget)
    local reply = redis.pcall('XAUTOCLAIM', stream, group, consumer, lease, cursor, 'COUNT', CLAIMS)
    if reply.err then return { '0-0', 0 } end
    local again = 0
    for _, item in ipairs(reply[2]) do
        -- Redis before 7 gives false for an entry that was deleted; later ones acknowledge it.
        if item and item[2] then
            local id, entry = item[1], item[2]
            set(entry, 'stalled', text((tonumber(get(entry, 'stalled')) or 0) + 1))
            add(entry)
            remove(id)
            again = again + 1
        end
    end
    if reply[1] == '0-0' then
        for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', stream, group)) do
            local name = get(info, 'name')
            if name ~= consumer and get(info, 'pending') == 0 and get(info, 'idle') > tonumber(forget) then
                redis.call('XGROUP', 'DELCONSUMER', stream, group, name)
            end
        end
    end
    return { reply[1], again }
end

-- A consumer leaves: what it still holds is added again for anybody, and its name is forgotten. How
-- much it was.
function operations.close(consumer)
    local count = 0
    local pending = redis.pcall('XPENDING', stream, group, '-', '+', BATCH, consumer)
    while not pending.err and #pending > 0 do
        for _, item in ipairs(pending) do
            local found = redis.call('XRANGE', stream, item[1], item[1])
            if #found > 0 then
                add(found[1][2])
                count = count + 1
            end
            remove(item[1])
        end
        pending = redis.pcall('XPENDING', stream, group, '-', '+', BATCH, consumer)
    end
    -- Without the group there is nobody to forget.
    redis.pcall('XGROUP', 'DELCONSUMER', stream, group, consumer)
    return count
end

function operations.extend(consumer, id)
    if not held(consumer, id) then return 0 end
    -- JUSTID: the time starts anew, the count of deliveries does not rise.
    redis.call('XCLAIM', stream, group, consumer, 0, id, 'JUSTID')
    return 1
end

-- Of each id: 1, or 0 if it is not held.
function operations.ack(consumer, ...)
    local answers, ids = {}, {}
    for at, id in ipairs({ ... }) do
        answers[at] = 0
        if held(consumer, id) then
            answers[at] = 1
            ids[#ids + 1] = id
        end
    end
    if #ids > 0 then
        redis.call('XACK', stream, group, unpack(ids))
        redis.call('XDEL', stream, unpack(ids))
    end
    return answers
end

-- 0: not held; 1: comes again; 2: dead.
function operations.retry(consumer, id, after, reason, most)
    local entry = held(consumer, id)
    if not entry then return 0 end
    local attempt = tonumber(get(entry, 'attempt')) or 1
    if not get(entry, 'first') then set(entry, 'first', reason) end
    if attempt >= tonumber(most) then
        bury(id, entry, reason, attempt)
        return 2
    end
    set(entry, 'attempt', text(attempt + 1))
    add_later(entry, tonumber(after))
    remove(id)
    return 1
end

function operations.release(consumer, id, after)
    local entry = held(consumer, id)
    if not entry then return 0 end
    add_later(entry, tonumber(after))
    remove(id)
    return 1
end

-- `tried` is 0 for a message that could not be read: nobody has tried this attempt.
function operations.dead_letter(consumer, id, reason, tried)
    local entry = held(consumer, id)
    if not entry then return 0 end
    if not get(entry, 'first') then set(entry, 'first', reason) end
    local attempt = tonumber(get(entry, 'attempt')) or 1
    bury(id, entry, reason, attempt - 1 + tonumber(tried))
    return 1
end

function operations.depth()
    local pending = redis.pcall('XPENDING', stream, group)
    local in_flight = 0
    if not pending.err then in_flight = pending[1] end
    local waiting = redis.call('XLEN', stream) - in_flight + redis.call('ZCARD', delayed)
    return { waiting, in_flight, redis.call('XLEN', dead) }
end

-- How long ago the oldest entry was enqueued, among those that are next; 0 without any.
function operations.oldest()
    local first = nil
    local function look_at(entry)
        local at = tonumber(get(entry, 'enqueued'))
        if at and (not first or at < first) then first = at end
    end
    for _, item in ipairs(redis.call('XRANGE', stream, '-', '+', 'COUNT', BATCH)) do look_at(item[2]) end
    for _, member in ipairs(redis.call('ZRANGE', delayed, 0, BATCH - 1)) do look_at(cjson.decode(member)) end
    if not first then return 0 end
    return math.max(0, now() - first)
end

-- Looks through a part of the dead letters, and puts back those of the jobs, or all if no jobs
-- follow. Where to go on (empty: that was all), the last letter of the first call, and how many.
function operations.redrive(from, to, ...)
    local wanted, all = {}, select('#', ...) == 0
    for _, job in ipairs({ ... }) do wanted[job] = true end
    if to == '+' then
        local last = redis.call('XREVRANGE', dead, '+', '-', 'COUNT', 1)
        if #last == 0 then return { '', '', 0 } end
        to = last[1][1]
    end
    local letters = redis.call('XRANGE', dead, from, to, 'COUNT', BATCH)
    local count = 0
    for _, letter in ipairs(letters) do
        local job = get(letter[2], 'job')
        if all or (job and wanted[job]) then
            local entry = { 'attempt', '1', 'enqueued', text(now()), 'stalled', '0' }
            for at = 1, #letter[2], 2 do
                local name = letter[2][at]
                if not (get(entry, name) or name == 'attempts' or name == 'reason'
                        or name == 'died' or name == 'first') then
                    set(entry, name, letter[2][at + 1])
                end
            end
            add(entry)
            redis.call('XDEL', dead, letter[1])
            count = count + 1
        end
    end
    if #letters < BATCH then return { '', to, count } end
    return { '(' .. letters[#letters][1], to, count }
end

return operations[ARGV[1]](unpack(ARGV, 2))
