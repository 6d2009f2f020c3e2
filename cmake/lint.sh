#!/bin/sh
# lint.sh BUILD JOBS [FILE...]: cppcheck, gcc -fanalyzer and clang-tidy over the product's sources and the fuzz targets (or
# FILEs). BUILD is configured and has its generated sources. Ends nonzero on a finding; suppressions stand beside what they
# are for.
#   arrayIndexThenCheck (cppcheck) takes `a[i] > 0 && i < n` for a check that is late, where i < n is no bound;
# ctuuninitvar (cppcheck) takes a pointer to what shall be filled for one to what is read.
#   analyzer-use-of-uninitialized-value (new in GCC 12) takes what calloc gave, and what a pointer was given to fill, for
# uninitialised; -Wmaybe-uninitialized and cppcheck look for the same.
#   analyzer-malloc-leak loses what is kept in an element of an array; the tests look for leaks as they run (LeakSanitizer).
#   -O0, because from -O1 on `a || !p` is one value to gcc, after which it no longer knows p.
set -u
build=$1 jobs=$2
shift 2
[ $# -gt 0 ] || set -- $(git ls-files '*.c' | grep -Ev '^(bench|models)/|^tests/[^/]*$|^core/(kernels_|status[.]c)')
bad=0
cppcheck -j "$jobs" --std=c11 --quiet --inline-suppr --enable=warning,performance,portability --error-exitcode=1 \
    --suppress=missingIncludeSystem --suppress=arrayIndexThenCheck --suppress=ctuuninitvar -I . --force "$@" || bad=1
printf '%s\n' "$@" | xargs -P "$jobs" -n 1 gcc -std=gnu17 -O0 -fanalyzer -Werror -Wno-analyzer-use-of-uninitialized-value \
    -Wno-analyzer-malloc-leak -include cmake/lint.h -D_GNU_SOURCE= -DTINYLORA_VERSION='"0"' -DTINYLORA_MODELS_DIR='"models"' \
    -I . -I "$build/generated" -fopenmp \
    $(pkg-config --cflags openblas lapacke gsl sqlite3 libutf8proc nettle hdf5) -c -o /dev/null || bad=1
printf '%s\n' "$@" | xargs -P "$jobs" -n 1 clang-tidy-14 -p "$build" --quiet --warnings-as-errors='*' --extra-arg=-includecmake/lint.h \
    --extra-arg=-ftrivial-auto-var-init=uninitialized --extra-arg=-Wno-unknown-warning-option || bad=1
exit $bad
