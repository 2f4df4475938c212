"""What Redis does in one step, in Lua: a job is never half changed, whoever dies in between.

A job is the hash `genai:job:ID`; while it is not finished, an entry of its queue's stream names it. Whoever runs it
holds two things: the entry, in the pending list of the consumer group, which goes to another worker once nobody
renewed it for the lease's time; and the number `lease`, which grows each time the job is begun. Only with the current
number can a job be finished, so a worker that comes back after it lost the entry changes nothing.

Times are Redis' own, in seconds since 1970, so that no clock of a pod matters. Scripts name keys that they were not
given (the key of a client's `Idempotency-Key`, what belongs to a stream): they are for one Redis or one with Sentinel,
not for a Redis Cluster. Beside each stream S there are

    S:deadlines   a sorted set: jobs that are not finished, by their deadline
    S:clients     a hash: how many entries of the stream belong to each client that has a name
    S:workers     a sorted set: workers, by when they were last heard of
    S:last        the entry that was handed out last, if its job is over and it could not be deleted yet

Nothing of a job that is not finished has an expiry, so that an eviction policy `volatile-*` never takes it.
"""

# Who makes an end of something must not be stopped by a memory that is full: only that frees it. Redis 7 knows flags.
_ALWAYS = "#!lua flags=allow-oom\n"

_SHARED = """
local function now()
  local time = redis.call('TIME')
  return string.format('%.3f', time[1] + time[2] / 1e6)
end

local function group_of(stream, group)
  for _, each in ipairs(redis.pcall('XINFO', 'GROUPS', stream)) do
    local about = {}
    for at = 1, #each, 2 do about[each[at]] = each[at + 1] end
    if about['name'] == group then return about end
  end
  return {}
end

local function first_of(stream)
  local found = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)
  return found[1] and found[1][1]
end

-- Deletes an entry that was handed out. While the newest deleted entry is also the one handed out last, and older ones
-- are there, Redis cannot say how many wait (`lag`): that entry stays until another was handed out or it is the first.
local function forget(stream, group, entry)
  local last, key = group_of(stream, group)['last-delivered-id'], stream .. ':last'
  local kept = redis.call('GET', key)
  redis.call('DEL', key)
  for _, each in ipairs({entry, kept or nil}) do
    if each ~= last or first_of(stream) == each then
      redis.call('XDEL', stream, each)
    else
      redis.call('SET', key, each)
    end
  end
end

local function field_of(stream, entry, name)
  local found = redis.call('XRANGE', stream, entry, entry)
  local fields = found[1] and found[1][2] or {}
  for at = 1, #fields, 2 do
    if fields[at] == name then return fields[at + 1] end
  end
  return ''
end

-- Takes an entry that was handed out from the queue, and from its client's share.
local function leave(stream, group, entry)
  local client = field_of(stream, entry, 'client')
  if client ~= '' and redis.call('HINCRBY', stream .. ':clients', client, -1) < 1 then
    redis.call('HDEL', stream .. ':clients', client)
  end
  redis.call('XACK', stream, group, entry)
  forget(stream, group, entry)
end

-- An entry that was not handed out stays: to delete it would make `lag` wrong. BEGIN drops it when a worker comes by.
local function settle(job, stream, group, keep, status, reason, detail)
  redis.call('HDEL', job, 'input')
  redis.call('HSET', job, 'status', status, 'reason', reason, 'detail', detail, 'finished', now())
  redis.call('HINCRBY', job, 'completions', 1)
  redis.call('EXPIRE', job, keep)
  local found = redis.call('HMGET', job, 'key', 'entry', 'id')
  if found[1] ~= '' then redis.call('EXPIRE', found[1], keep) end
  redis.call('ZREM', stream .. ':deadlines', found[3])
  local held = redis.pcall('XPENDING', stream, group, found[2], found[2], 1)
  if held[1] then leave(stream, group, found[2]) end
end

local function holds(stream, group, consumer, entry)
  local held = redis.pcall('XPENDING', stream, group, entry, entry, 1)
  return held[1] and held[1][2] == consumer
end

local function pending(stream, group)
  local found = redis.pcall('XPENDING', stream, group)
  return found[1] or 0
end

-- How many workers were at the queue in the last seconds.
local function workers(stream, seconds)
  return redis.call('ZCOUNT', stream .. ':workers', now() - seconds, '+inf')
end

-- Entries that no worker was given yet, also those of jobs that are over.
local function unread(stream, group)
  return group_of(stream, group)['lag'] or redis.call('XLEN', stream) - pending(stream, group)
end
"""

# KEYS job stream key; ARGV group most share id fingerprint seconds client, then fields and values. `key` may be '': no
# Idempotency-Key. `share`: how many entries of one client that has a name may be in the stream.
SUBMIT = (
    _SHARED
    + """
local job, stream, key = KEYS[1], KEYS[2], KEYS[3]
local group, most, share, id, fingerprint = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], ARGV[5]
local client = ARGV[7]
if key ~= '' then
  local known = redis.call('HMGET', key, 'job', 'fingerprint')
  if known[1] and redis.call('EXISTS', 'genai:job:' .. known[1]) == 1 then
    return {known[2] == fingerprint and 'known' or 'other', known[1]}
  end
end
redis.pcall('XGROUP', 'CREATE', stream, group, '0', 'MKSTREAM')
if unread(stream, group) >= most then return {'full'} end
if client ~= '' then
  if redis.call('XLEN', stream) == 0 then redis.call('DEL', stream .. ':clients') end  -- whatever was lost before
  if tonumber(redis.call('HGET', stream .. ':clients', client) or 0) >= share then return {'share'} end
  redis.call('HINCRBY', stream .. ':clients', client, 1)
end
local entry = redis.call('XADD', stream, '*', 'job', id, 'client', client)
local created = now()
local deadline = string.format('%.3f', created + ARGV[6])
redis.call('HSET', job, 'id', id, 'status', 'queued', 'attempts', 0, 'lease', 0, 'cancel', 0, 'entry', entry,
  'key', key, 'created', created, 'deadline', deadline, 'client', client, unpack(ARGV, 8))
redis.call('ZADD', stream .. ':deadlines', deadline, id)
if key ~= '' then redis.call('HSET', key, 'job', id, 'fingerprint', fingerprint) end
return {'created', id}
"""
)

# KEYS job stream; ARGV group client keep
CANCEL = (
    _ALWAYS
    + _SHARED
    + """
local job, stream, group = KEYS[1], KEYS[2], ARGV[1]
local found = redis.call('HMGET', job, 'client', 'status')
if found[1] ~= ARGV[2] then return 'none' end
if found[2] == 'queued' then
  settle(job, stream, group, ARGV[3], 'cancelled', '', '')
  return 'cancelled'
end
if found[2] == 'running' then
  redis.call('HSET', job, 'cancel', 1)
  return 'asked'
end
return found[2] == 'cancelled' and 'already' or 'finished'
"""
)

# KEYS stream; ARGV group keep seconds most, and the details of both failures. Ends jobs whose deadline has passed:
# those that wait, and those of workers that have not ended them themselves so many seconds later. How many that was.
# Makes the group, if Redis has lost it: without one, what scales the workers by it sees an error where no job waits.
OVERDUE = (
    _ALWAYS
    + _SHARED
    + """
local stream, group, keep, seconds, time = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(now())
if not group_of(stream, group)['name'] then redis.pcall('XGROUP', 'CREATE', stream, group, '0', 'MKSTREAM') end
local deadlines, ended = stream .. ':deadlines', 0
for _, id in ipairs(redis.call('ZRANGEBYSCORE', deadlines, '-inf', time, 'LIMIT', 0, ARGV[4])) do
  local job = 'genai:job:' .. id
  local found = redis.call('HMGET', job, 'status', 'deadline')
  if found[1] == 'running' and found[2] + seconds > time then
    redis.call('ZADD', deadlines, found[2] + seconds, id)
  elseif found[1] == 'queued' or found[1] == 'running' then
    settle(job, stream, group, keep, 'failed', 'deadline', ARGV[found[1] == 'queued' and 5 or 6])
    ended = ended + 1
  else
    redis.call('ZREM', deadlines, id)
  end
end
return ended
"""
)

# KEYS job stream; ARGV group consumer entry most keep, and the details of both failures it may find
BEGIN = (
    _ALWAYS
    + _SHARED
    + """
local job, stream = KEYS[1], KEYS[2]
local group, consumer, entry, most, keep = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
if not holds(stream, group, consumer, entry) then return {'lost'} end
local found = redis.call('HMGET', job, 'status', 'entry', 'cancel', 'deadline', 'attempts', 'kind')
if found[2] ~= entry or (found[1] ~= 'queued' and found[1] ~= 'running') then
  leave(stream, group, entry)
  return {'gone'}
end
local function ended(status, reason, detail)
  settle(job, stream, group, keep, status, reason, detail)
  return {status, found[6]}
end
if found[3] == '1' then return ended('cancelled', '', '') end
if found[4] and tonumber(found[4]) <= tonumber(now()) then return ended('failed', 'deadline', ARGV[6]) end
if tonumber(found[5]) >= most then return ended('failed', 'attempts', ARGV[7]) end
local attempt = redis.call('HINCRBY', job, 'attempts', 1)
local lease = redis.call('HINCRBY', job, 'lease', 1)
local time = now()
redis.call('HSET', job, 'status', 'running', 'worker', consumer, 'started', time)
local work = redis.call('HMGET', job, 'kind', 'model', 'gpus', 'input', 'created', 'request_id', 'media_type')
return {'run', lease, attempt, found[1] == 'running' and 1 or 0, time - work[5] .. '',
  found[4] and found[4] - time .. '' or '', unpack(work)}
"""
)

# KEYS job stream; ARGV group consumer entry lease
RENEW = (
    _ALWAYS
    + _SHARED
    + """
local job, stream = KEYS[1], KEYS[2]
local group, consumer, entry, lease = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local found = redis.call('HMGET', job, 'lease', 'status', 'cancel')
if found[1] ~= lease or found[2] ~= 'running' or not holds(stream, group, consumer, entry) then return 'lost' end
redis.call('XCLAIM', stream, group, consumer, 0, entry, 'JUSTID')
return found[3] == '1' and 'cancel' or 'held'
"""
)

# KEYS job stream result; ARGV group lease keep status reason detail result. 'again': it was this very worker, just
# before.
FINISH = (
    _ALWAYS
    + _SHARED
    + """
local job, stream, group, lease, status = KEYS[1], KEYS[2], ARGV[1], ARGV[2], ARGV[4]
local found = redis.call('HMGET', job, 'lease', 'status', 'cancel')
if found[1] ~= lease then return 'lost' end
if found[2] ~= 'running' then return found[2] == 'queued' and 'lost' or 'again ' .. found[2] end
if found[3] == '1' then status = 'cancelled' end
if status == 'succeeded' then redis.call('SET', KEYS[3], ARGV[7], 'EX', ARGV[3]) end
settle(job, stream, group, ARGV[3], status, status == 'failed' and ARGV[5] or '', status == 'failed' and ARGV[6] or '')
return 'done ' .. status
"""
)

# KEYS job result; ARGV first and last byte. {bytes of the whole result, this part of it}
RESULT = """
local size = redis.call('STRLEN', KEYS[2])
if size > 0 then return {size, redis.call('GETRANGE', KEYS[2], ARGV[1], ARGV[2])} end
local whole = redis.call('HGET', KEYS[1], 'result') or ''  -- where workers of earlier releases put it
return {#whole, string.sub(whole, ARGV[1] + 1, ARGV[2] + 1)}
"""

# KEYS job stream; ARGV group consumer entry lease nobody idle attempts. The entry may be taken over once `idle`
# milliseconds have become those of the lease; `attempts` is -1 where this one shall not count.
RELEASE = (
    _ALWAYS
    + _SHARED
    + """
local job, stream = KEYS[1], KEYS[2]
local group, consumer, entry, lease = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local found = redis.call('HMGET', job, 'lease', 'status')
if found[1] ~= lease or found[2] ~= 'running' or not holds(stream, group, consumer, entry) then return 0 end
redis.call('HSET', job, 'status', 'queued', 'worker', '')
redis.call('HINCRBY', job, 'attempts', ARGV[7])
redis.call('XCLAIM', stream, group, ARGV[5], 0, entry, 'IDLE', ARGV[6], 'JUSTID')
return 1
"""
)

# KEYS stream; ARGV group consumer nobody idle. What was given to the consumer and never begun goes to the next one.
LEAVE = """
local stream, group, consumer = KEYS[1], ARGV[1], ARGV[2]
redis.call('ZREM', stream .. ':workers', consumer)
local held = redis.pcall('XPENDING', stream, group, '-', '+', 10000, consumer)
if held.err then return 0 end
for _, each in ipairs(held) do
  redis.call('XCLAIM', stream, group, ARGV[3], 0, each[1], 'IDLE', ARGV[4], 'JUSTID')
end
redis.call('XGROUP', 'DELCONSUMER', stream, group, consumer)
return #held
"""

# KEYS stream; ARGV group milliseconds. Forgets consumers that hold nothing and have not been heard of for so long.
TIDY = """
redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
local gone = 0
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local about = {}
  for at = 1, #consumer, 2 do about[consumer[at]] = consumer[at + 1] end
  if about['pending'] == 0 and about['idle'] > tonumber(ARGV[2]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], about['name'])
    gone = gone + 1
  end
end
return gone
"""

# KEYS stream; ARGV consumer seconds. This worker is at the queue; who has not said so for so many seconds is not.
PRESENT = (
    _ALWAYS
    + _SHARED
    + """
local present, time = KEYS[1] .. ':workers', now()
redis.call('ZREMRANGEBYSCORE', present, '-inf', time - ARGV[2])
redis.call('ZADD', present, time, ARGV[1])
"""
)

# KEYS stream; ARGV seconds
WORKERS = _SHARED + "return workers(KEYS[1], ARGV[1])"

# KEYS stream; ARGV group and the lease in milliseconds. {jobs that wait for a worker, jobs that a living worker has,
# workers}
DEPTH = (
    _SHARED
    + """
local stream, group, lease = KEYS[1], ARGV[1], ARGV[2]
local taken = pending(stream, group)
local orphans = redis.pcall('XPENDING', stream, group, 'IDLE', lease, '-', '+', 10000)
local left = orphans.err and 0 or #orphans
return {unread(stream, group) + left, taken - left, workers(stream, lease / 1000)}
"""
)
