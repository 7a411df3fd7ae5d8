#!/bin/sh
# shellcheck disable=SC2034,SC2154,SC2317,SC2329
# Runs the Markov chains of this job with ALF; POSIX shell, so that a compute node or a container
# needs nothing else. Start it in this directory:
#
#   ORCHESTRA_ALF=/path/to/ALF.out sh run.sh
#
# A chain is a row of segments, dtau-K/chain-C/seg-NNNN. A segment is computed in seg-NNNN.part and
# renamed once it is complete; it starts from the configuration and the random numbers that the one
# before it left, so that a chain that was killed and resumed has the same bins as one that was not.
# Whatever is in a .part belongs to nobody and is computed again.
#
# It ends when the file `stop` exists, the wanted bins are done, or the time is used. The time of
# all finished segments counts, over every resume.
set -u
LC_ALL=C
export LC_ALL

chains=@CHAINS@       # run at the same time, one core each
steps=@STEPS@         # number of time steps dtau-0, dtau-1, ...
ranks=@RANKS@         # MPI processes per chain
sites=@SITES@
budget=@BUDGET@       # seconds per chain; 0: no limit
target=@TARGET@       # seconds that a segment should take, once the first short ones are done
enough=@ENOUGH@       # bins per chain that every time step gets before shares count
# per time step: bins of the first segment, share of the time, bins per chain (0: no limit)
@PLAN@

alf=${ORCHESTRA_ALF:?names the ALF binary}
if [ "$ranks" -gt 1 ]; then alf=${ORCHESTRA_ALF_MPI:-$alf}; fi # images hold a serial one beside it
OMP_NUM_THREADS=1
OPENBLAS_NUM_THREADS=1
export OMP_NUM_THREADS OPENBLAS_NUM_THREADS

# Children should die with their parent even if that is killed; where the kernel or setpriv cannot
# do it, they end at the next segment.
die_with_parent=
if setpriv --pdeathsig KILL true 2>/dev/null; then
    die_with_parent="setpriv --pdeathsig KILL"
fi

# Say why and end all chains.
fail() {
    echo "orchestra: $1" >&2
    : >failed
    kill -TERM "$parent"
    exit 1
}

# ---- one chain --------------------------------------------------------------------------------

# Sum of the numbers in the files $@, one each.
sum_of() {
    total=0
    for file in "$@"; do
        [ -f "$file" ] || continue
        read -r number <"$file"
        total=$((total + number))
    done
    echo "$total"
}

# What the bins and the final configuration in the segment $1 add up to.
check_sums() {
    (
        cd "$1" || exit 1
        for file in *_scal *_eq *_tau data.h5 confout_*; do
            [ ! -f "$file" ] || cksum "$file"
        done
    )
}

# Print how many good segments the chain $1 begins with. What comes after a damaged or missing one
# is removed: it will be computed again, with the same numbers.
keep_good_segments() {
    good=0
    while :; do
        segment=$1/$(printf 'seg-%04d' $((good + 1)))
        [ -d "$segment" ] || break
        if [ ! -s "$segment/sums" ] || ! check_sums "$segment" | cmp -s - "$segment/sums"; then
            echo "orchestra: $segment is damaged; it and those after it are computed again" >&2
            break
        fi
        good=$((good + 1))
    done
    for segment in "$1"/seg-*; do
        number=${segment##*/seg-}
        case $number in
        *[!0-9]*) continue ;;
        esac
        # without the leading zeros, which would make it octal
        while [ "${number#0}" != "$number" ]; do number=${number#0}; done
        if [ "$number" -gt "$good" ]; then rm -rf "$segment"; fi
    done
    echo "$good"
}

# Milliseconds since 1970; in whole seconds where date knows nothing better.
clock() {
    time=$(date +%s%3N)
    case $time in
    *[!0-9]*) time=$(date +%s)000 ;;
    esac
    echo "$time"
}

# Choose the time step k that is furthest behind its share; k=-1 if all are done.
choose_step() {
    k=-1
    best=0
    i=0
    while [ "$i" -lt "$steps" ]; do
        eval "spent=\$spent_$i share=\$share_$i bins=\$bins_$i wanted=\$wanted_$i"
        if [ "$wanted" -eq 0 ] || [ "$bins" -lt "$wanted" ]; then
            # a step with too few bins for an error comes first; else time per share
            score=$((spent * 1000 / share))
            if [ "$bins" -lt "$enough" ]; then score=$((bins + i - 1000000)); fi
            if [ "$bins" -eq 0 ]; then score=$((i - 2000000)); fi
            if [ "$k" -lt 0 ] || [ "$score" -lt "$best" ]; then
                k=$i
                best=$score
            fi
        fi
        i=$((i + 1))
    done
}

# Set `n`, the bins of the next segment of step k; 0: there is no time for one.
choose_length() {
    eval "n=\$next_$k bins=\$bins_$k spent=\$spent_$k wanted=\$wanted_$k"
    if [ "$wanted" -gt 0 ] && [ "$n" -gt $((wanted - bins)) ]; then
        n=$((wanted - bins))
    fi
    if [ "$budget" -gt 0 ] && [ "$spent" -gt 0 ]; then
        fits=$(((1000 * budget - elapsed) * bins / spent))
        if [ "$fits" -lt "$n" ]; then n=$fits; fi
    fi
}

# Compute segment $1 of $n bins of step k.
run_segment() {
    home=dtau-$k/chain-$chain
    name=$(printf 'seg-%04d' "$1")
    part=$home/$name.part
    rm -rf "$part"
    mkdir "$part" || fail "cannot write to $PWD/$home"
    sed "s/@NBIN@/$n/" "dtau-$k/parameters" >"$part/parameters" || fail "cannot write to $PWD/$part"
    for file in terms.dat trial.dat "dtau-$k/trial.dat" "$home/seeds"; do
        [ ! -f "$file" ] || cp "$file" "$part/" || fail "cannot write to $PWD/$part"
    done
    if [ "$1" -gt 1 ]; then
        before=$home/$(printf 'seg-%04d' $(($1 - 1)))
        for file in "$before"/confout_*; do
            [ -s "$file" ] || fail "$PWD/$before has no final configuration; remove that directory"
            cp "$file" "$part/confin_${file##*/confout_}" || fail "cannot write to $PWD/$part"
        done
    fi
    cd "$part" || fail "cannot enter $part"
    # word splitting is wanted: these are commands with arguments
    # shellcheck disable=SC2086
    $die_with_parent $launcher "$alf" >output 2>&1 </dev/null &
    child=$!
    wait "$child"
    code=$?
    child=
    cd "$top" || exit 1
    if [ "$code" -ne 0 ]; then
        # the message, without ALF's greeting and the addresses of a backtrace
        grep -v -e '^ *$' -e '^#' -e backtrace -e Backtrace -e 'This Program comes' \
            -e 'This is free software' -e 'ALF Copyright' "$part/output" | tail -n 5 >&2
        hint=
        if [ "$ranks" -gt 1 ]; then
            hint=" (ranks = $ranks needs an MPI build of ALF, and a launcher that its MPI knows;"
            hint="$hint this one is: $launcher)"
        fi
        how="ended with exit code $code"
        if [ "$code" -gt 128 ]; then how="was killed by SIG$(kill -l "$code")"; fi
        fail "ALF $how in $part$hint"
    fi
    check_segment "$part"
    now=$(clock)
    took=$((now - mark))
    mark=$now
    echo "$took" >"$part/milliseconds"
    echo "$n" >"$part/bins"
    rm -f "$part"/confin_* "$part/terms.dat" "$part/trial.dat" "$part/output"
    check_sums "$part" >"$part/sums"
    [ -s "$part/sums" ] || fail "cannot write to $PWD/$part"
    mv "$part" "$home/$name" || fail "cannot rename $PWD/$part"
}

# Refuse a segment that is not whole: a full disk must not pass for a short run.
check_segment() {
    if [ -e "$1/RUNNING" ]; then fail "ALF did not finish in $1"; fi
    found=0
    for file in "$1"/confout_*; do
        [ -s "$file" ] || fail "ALF left no configuration in $1"
        found=$((found + 1))
    done
    # ranks that do not find each other are so many serial runs, in one directory
    [ "$found" -eq "$ranks" ] || fail "ALF ran with $found instead of $ranks ranks in $1: the launcher \
(${launcher:-none}) and the MPI that ALF was built with do not know each other"
    if [ -s "$1/data.h5" ]; then return; fi
    [ -f "$1/Ener_scal" ] || fail "ALF wrote no bins in $1"
    for file in "$1"/*_scal "$1"/*_eq; do
        case $file in
        *_scal) lines=$n ;;
        *) lines=$((n * (2 + sites + sites * sites))) ;;
        esac
        found=$(wc -l <"$file")
        [ "$found" -eq "$lines" ] || fail "$file has $((found)) lines instead of $lines; disk full?"
    done
}

# Segments grow until they take their time, so that progress shows early and costs little later.
adapt_length() {
    wish=$((1000 * target))
    if [ "$((elapsed / 30))" -gt "$wish" ]; then wish=$((elapsed / 30)); fi
    if [ "$wish" -gt "$longest" ]; then wish=$longest; fi
    if [ "$took" -lt $((wish / 2)) ]; then
        eval "next_$k=\$((n * 2))"
    elif [ "$took" -gt $((wish * 2)) ] && [ "$n" -gt 1 ]; then
        eval "next_$k=\$((n / 2))"
    fi
}

run_chain() {
    chain=$1
    parent=$2
    child=
    top=$PWD
    # wait after the kill: nobody may write here once this process is gone; a launcher needs TERM
    # to take its processes with it
    signal=KILL
    if [ -n "$launcher" ]; then signal=TERM; fi
    trap '[ -z "$child" ] || kill -$signal "$child" 2>/dev/null; wait; exit 143' HUP INT TERM
    longest=$((1000 * (target > 300 ? target : 300)))
    elapsed=0
    i=0
    while [ "$i" -lt "$steps" ]; do
        home=dtau-$i/chain-$chain
        rm -rf "$home"/seg-*.part
        eval "segments_$i=$(keep_good_segments "$home")"
        eval "spent_$i=$(sum_of "$home"/seg-*/milliseconds)"
        eval "bins_$i=$(sum_of "$home"/seg-*/bins)"
        eval "elapsed=\$((elapsed + spent_$i)) next_$i=\$first_$i"
        i=$((i + 1))
    done
    mark=$(clock)
    while [ ! -e failed ] && kill -0 "$parent" 2>/dev/null; do
        choose_step
        if [ "$k" -lt 0 ]; then break; fi
        eval "bins=\$bins_$k"
        # every step gets a first segment: without one there would be no result at all
        if [ "$bins" -gt 0 ] && [ -e stop ]; then break; fi
        if [ "$bins" -gt 0 ] && [ "$budget" -gt 0 ] && [ "$elapsed" -ge $((1000 * budget)) ]; then break; fi
        choose_length
        if [ "$n" -lt 1 ]; then break; fi
        eval "run_segment \$((segments_$k + 1))"
        elapsed=$((elapsed + took))
        eval "segments_$k=\$((segments_$k + 1)) bins_$k=\$((bins_$k + n))"
        eval "spent_$k=\$((spent_$k + took))"
        adapt_length
    done
}

# ---- all chains -------------------------------------------------------------------------------

launcher=
if [ "$ranks" -gt 1 ]; then
    launcher=$(printf '%s' "${ORCHESTRA_ALF_LAUNCHER:-mpiexec -n {ranks\}}" | sed "s/{ranks}/$ranks/")
fi

if [ "${1-}" = chain ]; then
    run_chain "$2" "$3"
    exit 0
fi

rm -f failed
pids=
# shellcheck disable=SC2086
trap 'kill -TERM $pids 2>/dev/null; wait; [ ! -e failed ] || exit 1; exit 143' HUP INT TERM
c=0
while [ "$c" -lt "$chains" ]; do
    # shellcheck disable=SC2086
    $die_with_parent sh "$0" chain "$c" $$ &
    pids="$pids $!"
    c=$((c + 1))
done
code=0
for pid in $pids; do
    wait "$pid" || code=1
done
if [ -e failed ]; then code=1; fi
exit "$code"
