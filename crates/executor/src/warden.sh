# The warden: outlives the worker by as much as it takes to end what the worker has started.
#
# $1 is the token in the marks of the worker's processes. Standard input ends when the worker does;
# standard output is a file with the process groups that ran, one per line. Needs grep and sleep.
token=$1
command -v grep >&2 && command -v sleep >&2 || exit 127
trap '' HUP INT QUIT TERM
read -r _

# end SIGNAL: signals who is left; fails when nobody is.
end() {
    left=
    while read -r group; do
        [ -n "$group" ] && kill "-$1" "-$group" && left=1
    done </proc/self/fd/1
    for file in $(grep -lsF "$token" /proc/[0-9]*/environ); do
        process=${file#/proc/}
        kill "-$1" "${process%/environ}" && left=1
    done
    [ -n "$left" ]
}

end TERM || exit 0
sleep 1
for round in 1 2 3 4 5 6 7 8 9 10; do
    end KILL || exit 0
    sleep 0.1 || sleep 1
done
