-- Asks something of the worker that holds a token. ARGV: root, token, the command.
return tell(ARGV[1], ARGV[2], ARGV[3]) and 1 or 0
