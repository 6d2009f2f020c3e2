#!/bin/bash
# Speed and memory beside PyTorch, each pair of runs in the same minute: a table of medians and ratios.
# usage: bench/run.sh [BUILD] [qwen2.5-0.5b|small ...]
# THREADS (2) and REPEATS (3) may be set. Where there is no PyTorch its columns stay empty.
set -euo pipefail
cd "$(dirname "$0")/.."
build=${1:-build}
shift || true
shapes=${*:-qwen2.5-0.5b small}
threads=${THREADS:-2} repeats=${REPEATS:-3}
work=$build/bench
mkdir -p "$work"

# OpenBLAS 0.3.21 does not know recent CPUs and would run SSE3 kernels; PyTorch of Debian uses it too.
cores=Haswell
grep -qm1 avx512f /proc/cpuinfo && cores=SkylakeX

python=
for candidate in "${PYTHON:-}" python3 /usr/bin/python3; do
    if [ -n "$candidate" ] && "$candidate" -c 'import torch' 2>/dev/null; then
        python=$candidate
        break
    fi
done

# PyTorch at its best: freed memory is kept and lies in huge pages (15 to 25 % of a training step).
peer() { # DTYPE SHAPE TASK...
    local dtype=$1 shape=$2
    [ -n "$python" ] && [ "$dtype" != none ] || return 0
    shift 2
    env OMP_NUM_THREADS="$threads" OPENBLAS_CORETYPE=$cores LD_LIBRARY_PATH=/usr/lib/x86_64-linux-gnu/openblas-openmp \
        MALLOC_MMAP_THRESHOLD_=8589934592 MALLOC_TRIM_THRESHOLD_=17179869184 MALLOC_TOP_PAD_=1073741824 \
        GLIBC_TUNABLES=glibc.malloc.hugetlb=1 \
        timeout 300 "$python" bench/peer_torch.py "bench/$shape.json" "$dtype" "$threads" "$repeats" "$@" || true
}

# With the settings that the program gives itself (cli/main.c).
ours() { # SHAPE TASK...
    local shape=$1
    shift
    env OPENBLAS_CORETYPE=$cores GOMP_SPINCOUNT=5000 "$build/bench_engine" "$work/$shape" "$threads" "$repeats" "$@"
}

row() { # SHAPE DTYPE-OF-PEER TASK...
    local shape=$1 dtype=$2 mine theirs
    shift 2
    mine=$(ours "$shape" "$@")
    theirs=$(peer "$dtype" "$shape" "$@")
    awk -v shape="$shape" -v what="$*" -v mine="$mine" -v theirs="$theirs" -v dtype="$dtype" 'BEGIN {
        split(mine, m); n = split(theirs, t)
        ratio = n < 4 ? "" : sprintf("%.2f", m[2] == "s/step" ? t[4] / m[4] : m[4] / t[4])
        printf "%-13s %-15s %-9s %10.2f %10.2f %8d  %-5s %10s %8s %7s\n", shape, what, m[2], m[3], m[4], m[6],
            n < 4 ? "-" : dtype, n < 4 ? "-" : sprintf("%.2f", t[4]), n < 4 ? "-" : t[6], ratio }'
}

echo "$(date -u +%F\ %H:%M) UTC, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1), $threads threads, median of $repeats"
if [ -n "$python" ]; then
    echo "peer: PyTorch $("$python" -c 'import torch; print(torch.__version__)') ($python), OPENBLAS_CORETYPE=$cores"
else
    echo "peer: none, no python3 here has torch"
fi
# overhead: what an adapter of 13 scalars is of a step, %: by the best steps, by the medians, by the time inside its calls.
apart() { # SHAPE MODEL REPEATS TASK... (lines of their own: two ways in turns, in one process)
    local shape=$1 model=$2 times=$3
    shift 3
    printf "%-13s %-15s %s\n" "$shape" "$*" "$(env OPENBLAS_CORETYPE=$cores GOMP_SPINCOUNT=5000 \
        "$build/bench_engine" "$model" "$threads" "$times" "$@")"
}

printf "%-13s %-15s %-9s %10s %10s %8s  %-5s %10s %8s %7s\n" shape task unit best median MiB peer median MiB ratio

# Questions with their answers, and a tokenizer of the shape's vocabulary; without them surfaces are not timed.
rows=${ROWS:-../shared/data/gsm8k/test.jsonl} tokenizer=${TOKENIZER:-../shared/data/tokenizers/qwen2.5/tokenizer.json}

if [ -x "$build/bench_tokenizer" ] && [ -f "$rows" ] && [ -f "$tokenizer" ]; then # one thread each
    echo "tokenizing: megabytes, texts, tokens, best and median MB/s ($tokenizer)"
    texts=("$rows" "$(dirname "$rows")/train.jsonl")
    "$build/bench_tokenizer" "$tokenizer" 5 "${texts[@]}"
    for candidate in "${PYTHON:-}" python3; do
        if [ -n "$candidate" ] && "$candidate" -c 'import tokenizers' 2>/dev/null; then
            "$candidate" tests/tokenizer_golden.py --speed "$tokenizer" "${texts[@]}"
            break
        fi
    done
fi

if [ -x "$build/bench_svd" ]; then # one thread each: OpenBLAS and ours
    echo "top 2 triplets of 896 x 4864 by its spectrum, beside LAPACK"
    env OPENBLAS_CORETYPE=$cores OPENBLAS_NUM_THREADS=1 "$build/bench_svd" time 896 4864 2 5
fi

if [ -x "$build/bench_verify" ]; then # a header of 20000 tensors, SHA-256 of 1 GiB
    "$build/bench_verify"
fi

for shape in $shapes; do
    dtype=$(sed -n 's/.*"torch_dtype": "\(.*\)".*/\1/p' "bench/$shape.json")
    case $dtype in bfloat16) dtype=bf16 ;; *) dtype=f32 ;; esac
    [ -d "$work/$shape" ] || "$build/tinylora" --quiet model random --config "bench/$shape.json" --dtype $dtype --seed 1 "$work/$shape"
    new=48 times=$repeats
    [ "$shape" = small ] && new=256 times=30
    if [ "$shape" != small ]; then # from nothing to the first token, each time in a process of its own
        [ -f "$tokenizer" ] && cp "$tokenizer" "$work/$shape/tokenizer.json"
        "$build/bench_load" "$work/$shape" "$threads" 7
    fi
    for n in 1 8 16 32; do
        row "$shape" $dtype decode $n $new
    done
    row "$shape" f32 prefill 512
    row "$shape" f32 train 4 256
    if [ "$shape" != small ] && [ -f "$rows" ] && [ -f "$tokenizer" ]; then # a surface, over rows of real lengths
        for points in 21 1; do
            echo "scan, $points points: s/point, tokens, answer tokens, GFLOP/point, GFLOP/s, peak GFLOP/s, peak/rate, MiB, share of cores"
            env OPENBLAS_CORETYPE=$cores GOMP_SPINCOUNT=5000 "$build/bench_scan" "$work/$shape" "$rows" "$threads" 8 $points "$work/tokens"
        done
        for peer_dtype in f32 bf16; do
            echo "peer, $peer_dtype: $(peer $peer_dtype "$shape" scan "$work/tokens" 16)"
        done
    fi
    apart "$shape" "$work/$shape" "$times" overhead 4 256
    if [ "$shape" = small ]; then # as it scales: by tokens, and by adapters in one batch
        row "$shape" none train 1 256
        row "$shape" none train 28 256
        row "$shape" none train 28 256 7
        apart "$shape" "$work/$shape" 9 group 8 200 64 # one prompt for all, or one each: seconds, ratio
    fi
done
apart abacus models/abacus 300 overhead 16 64
