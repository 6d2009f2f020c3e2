#!/bin/sh
# lint.sh BUILD JOBS [FILE...]: cppcheck, gcc -fanalyzer and clang-tidy over the product's sources (or FILEs). BUILD is
# configured and has its generated sources. Ends nonzero on a finding; suppressions stand beside what they are for.
#   arrayIndexThenCheck (cppcheck) takes `a[i] > 0 && i < n` for a check that is late, where i < n is no bound.
#   analyzer-use-of-uninitialized-value (new in GCC 12) takes what calloc gave, and what a pointer was given to fill, for
# uninitialised; -Wmaybe-uninitialized and cppcheck look for the same.
set -u
build=$1 jobs=$2
shift 2
[ $# -gt 0 ] || set -- $(git ls-files '*.c' | grep -Ev '^(tests|bench|models)/|^core/(kernels_|status[.]c)')
bad=0
cppcheck -j "$jobs" --std=c11 --quiet --inline-suppr --enable=warning,performance,portability --error-exitcode=1 \
    --suppress=missingIncludeSystem --suppress=arrayIndexThenCheck -I . --force "$@" || bad=1
printf '%s\n' "$@" | xargs -P "$jobs" -n 1 gcc -std=gnu17 -O1 -fanalyzer -Werror -Wno-analyzer-use-of-uninitialized-value \
    -include cmake/lint.h -DTINYLORA_VERSION='"0"' -DTINYLORA_MODELS_DIR='"models"' -I . -I "$build/generated" -fopenmp \
    $(pkg-config --cflags openblas lapacke gsl sqlite3 libutf8proc nettle hdf5) -c -o /dev/null || bad=1
printf '%s\n' "$@" | xargs -P "$jobs" -n 1 clang-tidy-14 -p "$build" --quiet --warnings-as-errors='*' --extra-arg=-includecmake/lint.h \
    --extra-arg=-ftrivial-auto-var-init=uninitialized --extra-arg=-Wno-unknown-warning-option || bad=1
exit $bad
