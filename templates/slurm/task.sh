#!/bin/sh
# Runs one point on a compute node; POSIX shell, nothing else is needed there.
#
#   sh task.sh DIRECTORY JOB
#
# The state is in DIRECTORY/task: `running` while the engine runs, renamed at its end to
# `ended-CODE-REASON`. A rename needs no space: it works on a full disk, too.
# shellcheck disable=SC2317,SC2329
set -u
umask go-w
cd -P -- "$1" || exit 1
job=$2
refuse() {
    echo "orchestra: refused: $1" >&2
    exit 77
}
# looked at from inside: nobody can put another directory in their place any more
if ! [ -O . ] || ! [ -O job ]; then refuse "$PWD belongs to another user"; fi
mkdir -p task || exit 1
leave_if_computed() { # by an earlier job, or elsewhere meanwhile
    for found in result.nc task/ended-0-*; do
        if [ -e "$found" ]; then exit 0; fi
    done
}
leave_if_computed
# Nobody else may write here; file systems without locks are left to the scheduler. A submission holds
# the locks of its points until it has recorded them all: its first tasks begin before that.
if command -v flock >/dev/null 2>&1; then
    exec 9>>lock
    patience=${ORCHESTRA_PATIENCE:-120}
    while :; do
        flock -n 9
        [ $? -eq 1 ] || break
        if [ "$patience" -le 0 ]; then
            echo "orchestra: $PWD is in use by another process" >&2
            exit 75
        fi
        patience=$((patience - 1))
        sleep 1
    done
    leave_if_computed
fi
# what is started, and what it reads, as it was submitted
if ! said=$(
    cd job && LC_ALL=C sha256sum -c - 2>&1 <<'SUMS'
@SUMS@
SUMS
); then
    printf '%s\n' "$said" | grep -v ': OK$' >&2
    refuse "a file of $PWD/job is not what was submitted"
fi
# before anybody can see that it runs: a signal must find its trap
reason=
child=
stop() {
    reason=$1
    if [ -n "$child" ]; then kill -TERM "$child" 2>/dev/null; fi
}
trap 'stop timelimit' USR1
trap 'stop stopped' TERM INT HUP
rm -f task/ended-* task/.new
if ! { printf 'job=%s\nhost=%s\nstart=%s\nrestart=%s\n' "$job" "$(uname -n)" "$(date +%s)" \
    "${SLURM_RESTART_COUNT:-0}" >task/.new && [ -s task/.new ] && mv task/.new task/running; }; then
    echo "orchestra: cannot write to $PWD/task; disk full?" >&2
    exit 74
fi
(
    cd job || exit 1
@ENVIRONMENT@
    echo "--- job $job" >>engine.log
    exec @COMMAND@ >>engine.log 2>&1 </dev/null
) &
child=$!
if [ -n "$reason" ]; then kill -TERM "$child" 2>/dev/null; fi
while :; do
    wait "$child"
    code=$?
    kill -0 "$child" 2>/dev/null || break # a signal ends the wait, not the child
done
# the engine may end while a signal ends the wait: its own status then, where the shell still knows it
wait "$child"
last=$?
if [ "$last" -ne 127 ]; then code=$last; fi
if [ "$code" -eq 0 ]; then
    reason='done'
elif [ -z "$reason" ]; then
    reason=engine
fi
mv task/running "task/ended-$code-$reason"
touch "task/ended-$code-$reason"
exit "$code"
