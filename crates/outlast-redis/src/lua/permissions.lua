-- Which commands of the scripts our user may not use: asked before any of them is half-way through its work. Runs with the flag
-- no-writes: who may use a command is judged before whether the script may write, so nothing is ever written. ARGV[1] a key
-- of ours; it is not declared, because a user may be kept from it. Answers {those that are refused, other errors}; there are none of the latter.
-- A row per command, with arguments that it takes; `scripts.rs` reads the names.
local K = ARGV[1]
local COMMANDS = {
  {'DEL', K},
  {'EXISTS', K},
  {'EXPIRE', K, '1'},
  {'EXPIREAT', K, '1'},
  {'GET', K},
  {'GETRANGE', K, '0', '0'},
  {'HDEL', K, 'f'},
  {'HEXISTS', K, 'f'},
  {'HGET', K, 'f'},
  {'HGETALL', K},
  {'HINCRBY', K, 'f', '1'},
  {'HLEN', K},
  {'HMGET', K, 'f'},
  {'HSET', K, 'f', 'v'},
  {'HSTRLEN', K, 'f'},
  {'INCR', K},
  {'INCRBY', K, '1'},
  {'LINDEX', K, '0'},
  {'LLEN', K},
  {'LMOVE', K, K, 'LEFT', 'LEFT'},
  {'LPOP', K},
  {'LPOS', K, 'v'},
  {'LPUSH', K, 'v'},
  {'LRANGE', K, '0', '0'},
  {'LREM', K, '0', 'v'},
  {'LSET', K, '0', 'v'},
  {'LTRIM', K, '0', '0'},
  {'MEMORY', 'USAGE', K},
  {'MGET', K},
  {'OBJECT', 'ENCODING', K},
  {'PERSIST', K},
  {'PEXPIRE', K, '1'},
  {'PUBLISH', K, 'v'},
  {'RPUSH', K, 'v'},
  {'SADD', K, 'v'},
  {'SCARD', K},
  {'SET', K, 'v'},
  {'SETEX', K, '1', 'v'},
  {'SISMEMBER', K, 'v'},
  {'SMEMBERS', K},
  {'SRANDMEMBER', K, '1'},
  {'SREM', K, 'v'},
  {'STRLEN', K},
  {'SUNION', K},
  {'TTL', K},
  {'TYPE', K},
  {'ZADD', K, '1', 'v'},
  {'ZCARD', K},
  {'ZCOUNT', K, '0', '1'},
  {'ZMSCORE', K, 'v'},
  {'ZRANGE', K, '0', '0'},
  {'ZREM', K, 'v'},
  {'ZREMRANGEBYRANK', K, '0', '0'},
  {'ZREMRANGEBYSCORE', K, '0', '1'},
  {'ZSCAN', K, '0'},
  {'ZSCORE', K, 'v'},
}
local refused, odd = {}, {}
for _, command in ipairs(COMMANDS) do
  local answer = redis.pcall(unpack(command))
  local why = type(answer) == 'table' and answer.err
  -- Redis, and Valkey. A user who may use a command on other keys than this one is not meant.
  if why and (string.find(why, "can't run this command", 1, true) or string.find(why, 'no permissions to run', 1, true)) then
    refused[#refused + 1] = command[1]
  elseif why and not string.find(why, 'read-only script', 1, true) then
    odd[#odd + 1] = command[1] .. ': ' .. why
  end
end
return {refused, odd}
