#!/bin/sh
# Installs the Debian packages that the build needs and this machine lacks; does nothing where all are there.
# install-missing.sh fuzz: also what `make fuzz` needs; lint: what `make lint` needs.
set -eu
missing=""
need() { # need PACKAGE TEST...
    package=$1
    shift
    if ! "$@" >/dev/null 2>&1; then
        missing="$missing $package"
    fi
}
header() { echo "#include <$1>" | cc -fsyntax-only -x c -; }

need gcc sh -c 'command -v cc'
need cmake sh -c 'command -v cmake'
need make sh -c 'command -v make'
need pkg-config sh -c 'command -v pkg-config'
need libc6-dev header stdio.h
need libopenblas-dev pkg-config --exists openblas
need liblapacke-dev pkg-config --exists lapacke
need libgsl-dev pkg-config --exists gsl
need libsqlite3-dev pkg-config --exists sqlite3
need libutf8proc-dev pkg-config --exists libutf8proc
need nettle-dev pkg-config --exists nettle
need librandom123-dev header Random123/philox.h
need libhdf5-dev pkg-config --exists hdf5
need gnuplot-nox sh -c 'command -v gnuplot'
need libcmocka-dev pkg-config --exists cmocka
case ${1:-} in
fuzz)
    need clang-14 sh -c 'command -v clang-14'
    need libclang-rt-14-dev sh -c 'ls /usr/lib/llvm-14/lib/clang/*/lib/linux/libclang_rt.fuzzer-*.a'
    need libomp-14-dev sh -c 'ls /usr/lib/llvm-14/lib/libomp.so'
    ;;
lint)
    need clang-tidy-14 sh -c 'command -v clang-tidy-14'
    need cppcheck sh -c 'command -v cppcheck'
    ;;
esac

[ -n "$missing" ] || exit 0
echo "installing:$missing" >&2
if [ "$(id -u)" = 0 ]; then
    as_root=""
elif command -v sudo >/dev/null 2>&1; then
    as_root=sudo
else
    echo "missing packages, and neither root nor sudo is at hand; install:$missing" >&2
    exit 1
fi
$as_root apt-get update -q >&2
# shellcheck disable=SC2086
DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -q --no-install-recommends $missing >&2
