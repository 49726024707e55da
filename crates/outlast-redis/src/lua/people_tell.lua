-- ARGV: the root, the token of the worker, the command. Answers 1, or 0 if too many wait already.
return tell(ARGV[1], ARGV[2], ARGV[3]) and 1 or 0
