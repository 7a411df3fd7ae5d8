#!/bin/bash
@DIRECTIVES@
#
# One array task computes the points in tasks/<index>, at most `parallel` at the same time. Points
# that are done are skipped: a requeued or resubmitted task goes on where it was.
# shellcheck disable=SC2317,SC2329
parallel=@PARALLEL@
requeues=@REQUEUES@
index=${SLURM_ARRAY_TASK_ID:-0}
job=${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}_$index
@MODULES@
@PROLOGUE@
set -u # only now: profiles of sites and activation scripts use what is not set
umask go-w

# The scheduler copied this script when it was submitted, so nobody can have changed what it knows:
# that what it starts is ours, and the SHA-256 of every task script, which in turn knows those of what
# it starts. Links and directories may have been replaced by whoever may write above them.
sums=(
@SUMS@
)
refuse() {
    echo "orchestra: refused: $1 is not what was submitted" >&2
}
if ! [ -O . ]; then
    refuse "$PWD"
    exit 77
fi
while read -r sum image; do
    if [ -n "$sum" ] && [ "$(sha256sum <"$image")" != "$sum  -" ]; then
        refuse "$image"
        exit 77
    fi
done <<'IMAGES'
@IMAGES@
IMAGES
# Start the point $1 by a script whose SHA-256 is $2. It is read once: what was looked at is what runs.
start() {
    if ! [ -O "$1/task.sh" ]; then
        refuse "$1/task.sh"
        return
    fi
    IFS= read -r -d '' text <"$1/task.sh"
    if [ "$(printf %s "$text" | sha256sum)" != "$2  -" ]; then
        refuse "$1/task.sh"
        return
    fi
    sh -s "$1" "$job" < <(printf %s "$text") &
}
limit=
forward() {
    if [ "$1" = USR1 ]; then limit=yes; fi
    stopping=yes
    running=$(jobs -rp)
    # word splitting is wanted: a list of processes
    # shellcheck disable=SC2086
    if [ -n "$running" ]; then kill -s "$1" $running 2>/dev/null; fi
}
stopping=
trap 'forward USR1' USR1
trap 'forward TERM' TERM INT

# a sign of life once a minute, for `orchestra status` without a scheduler
alive=alive-$index
: >"$alive"
touched=$SECONDS
quick=0
tick() {
    if [ $((SECONDS - touched)) -ge 60 ]; then
        touch "$alive"
        touched=$SECONDS
    fi
    # a point of a moment is noticed in a moment; a long one costs no attention
    if [ "$quick" -gt 0 ]; then
        quick=$((quick - 1))
        sleep 0.02
    else
        sleep 0.2
    fi
}
code=0
# word splitting is wanted: one sum for every point
# shellcheck disable=SC2086
set -- ${sums[index]-}
for point in tasks/"$index"/*; do
    while [ "$(jobs -rp | wc -l)" -ge "$parallel" ] && [ -z "$stopping" ]; do
        tick
    done
    if [ -n "$stopping" ]; then break; fi
    place=$((10#${point##*/} + 1))
    start "$point" "${!place-}"
    quick=50
done
while [ "$(jobs -rp | wc -l)" -gt 0 ]; do
    tick
done
left=0
for point in tasks/"$index"/*; do
    for marker in "$point"/task/ended-0-*; do
        if [ ! -e "$marker" ] && [ ! -e "$point/result.nc" ]; then
            left=$((left + 1))
            code=1
            echo "orchestra: not finished: $(readlink "$point")" >&2
        fi
    done
done
if [ -n "$limit" ] && [ "$left" -gt 0 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt "$requeues" ]; then
    echo "orchestra: time limit; the task goes back into the queue and resumes" >&2
    # not by SLURM_JOB_ID: for one task of an array that is the number of the whole array
    scontrol requeue "$job" && exit 0
fi
exit "$code"
