# Runs a test server and ends it when standard input closes, which is when the test process is gone.
#
#   sh -c "$(cat watchdog.sh)" watchdog FOLDER LOG BINARY CONFIG
#
# Prints the server's pid, waits for the server, exits with its status. If standard input closes before the server has ended,
# kills it and removes FOLDER, for nobody else will. Ends only with the server, so that its pid cannot become another's.
trap '' HUP INT TERM
folder=$1 log=$2
shift 2
# A background command's standard input is /dev/null, so the lifeline moves to 3; the server must not hold it.
exec 3<&0 </dev/null
"$@" >"$log" 2>&1 3<&- &
server=$!
# Nobody writes into the lifeline: reading it waits for its end.
{
    read -r _ <&3
    : >"$folder/orphaned"
    kill -9 "$server"
} >/dev/null 2>&1 &
watcher=$!
exec 3<&-
echo "$server"
wait "$server"
status=$?
kill -9 "$watcher"
[ ! -e "$folder/orphaned" ] || rm -rf "$folder"
exit "$status"
