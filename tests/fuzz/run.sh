#!/bin/sh
# run.sh BUILD SECONDS [TARGET...]: fuzzes each target (all of them) for so long, or for $RUNS executions, whichever is
# first; prints the executions of each. What is found lies in BUILD/found/TARGET-*, the corpora that grew in
# BUILD/corpus/TARGET, logs in BUILD/log/TARGET. Ends nonzero where something was found.
set -eu
build=$1 seconds=$2
shift 2
here=$(dirname "$0")
[ $# -gt 0 ] || set -- $(cd "$here" && ls *_*.c | grep -v no_kernels | sed 's/\.c$//')
mkdir -p "$build/found" "$build/log"
FUZZ_FOLDER=$(mktemp -d -p "$([ -w /dev/shm ] && echo /dev/shm || echo /tmp)")
export FUZZ_FOLDER
trap 'rm -rf "$FUZZ_FOLDER"' EXIT
# Memory of gigabytes, which a file may ask for, is an error that is told. Short stacks and a small quarantine are fast.
export ASAN_OPTIONS=allocator_may_return_null=1:malloc_context_size=1:quarantine_size_mb=4
export UBSAN_OPTIONS=print_stacktrace=1
bad=0
for target; do
    mkdir -p "$build/corpus/$target" "$here/corpus/$target"
    cat "$here/json.dict" > "$build/$target.dict"
    [ ! -e "$here/$target.dict" ] || cat "$here/$target.dict" >> "$build/$target.dict"
    # Room for twice the largest seed: longer inputs are slower and say nothing new.
    largest=$(find "$here/corpus/$target" -type f -printf '%s\n' | sort -n | tail -1)
    longest=$((${largest:-0} < 256 ? 512 : ${largest:-0} > 2048 ? 4096 : 2 * largest))
    status=0
    "$build/fuzz_$target" -max_total_time="$seconds" -runs="${RUNS:--1}" -max_len="$longest" -timeout=20 -rss_limit_mb=3000 \
        -dict="$build/$target.dict" -artifact_prefix="$build/found/$target-" -print_final_stats=1 \
        "$build/corpus/$target" "$here/corpus/$target" > "$build/log/$target" 2>&1 || status=$?
    number=$(sed -n 's/^stat::number_of_executed_units: *//p' "$build/log/$target")
    speed=$(sed -n 's/^stat::average_exec_per_sec: *//p' "$build/log/$target")
    if [ "$status" = 0 ]; then
        printf '%-24s %10s executions, %6s a second, clean\n' "$target" "$number" "$speed"
    else
        bad=1
        printf '%-24s %10s executions, FOUND: %s\n' "$target" "${number:-?}" \
            "$(sed -n 's/^SUMMARY: *//p; s/.*Test unit written to */in /p' "$build/log/$target" | tr '\n' ' ')"
    fi
done
exit $bad
