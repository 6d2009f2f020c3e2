/* Preloaded into the program by test_cli_faults: the n-th call that writes to, flushes or shortens
 * a file whose name holds $FAULT_NAME fails once with $FAULT_ERROR. $FAULT_KIND: "write", "sync" or
 * "truncate"; $FAULT_AT: n, from 1 (0: none). $FAULT_COUNT: a file that is told, at the end, how
 * many such calls there were. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static long n_calls, fail_at;
static const char *name, *kind, *count;
static int code;

__attribute__((constructor)) static void begin(void)
{
    name = getenv("FAULT_NAME");
    kind = getenv("FAULT_KIND");
    count = getenv("FAULT_COUNT");
    fail_at = getenv("FAULT_AT") ? atol(getenv("FAULT_AT")) : 0;
    code = getenv("FAULT_ERROR") ? atoi(getenv("FAULT_ERROR")) : EIO;
}

__attribute__((destructor)) static void end(void)
{
    FILE *file = count ? fopen(count, "w") : NULL;
    if (file) {
        fprintf(file, "%ld\n", n_calls);
        fclose(file);
    }
}

static int fails(int file, const char *what)
{
    char link[64], path[4096];
    if (!name || !kind || strcmp(kind, what) != 0) {
        return 0;
    }
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n <= 0) {
        return 0;
    }
    path[n] = 0;
    const char *found = strstr(path, name);
    if (!found || strstr(path, "-lock")) {
        return 0;
    }
    if (__atomic_add_fetch(&n_calls, 1, __ATOMIC_SEQ_CST) != fail_at) {
        return 0;
    }
    errno = code;
    return 1;
}

#define REAL(function) ((__extension__(__typeof__(&function))dlsym(RTLD_NEXT, #function)))

ssize_t write(int file, const void *bytes, size_t n)
{
    return fails(file, "write") ? -1 : REAL(write)(file, bytes, n);
}
ssize_t pwrite(int file, const void *bytes, size_t n, off_t at)
{
    return fails(file, "write") ? -1 : REAL(pwrite)(file, bytes, n, at);
}
ssize_t pwrite64(int file, const void *bytes, size_t n, off64_t at)
{
    return fails(file, "write") ? -1 : REAL(pwrite64)(file, bytes, n, at);
}
int fsync(int file)
{
    return fails(file, "sync") ? -1 : REAL(fsync)(file);
}
int fdatasync(int file)
{
    return fails(file, "sync") ? -1 : REAL(fdatasync)(file);
}
int ftruncate(int file, off_t n)
{
    return fails(file, "truncate") ? -1 : REAL(ftruncate)(file, n);
}
int ftruncate64(int file, off64_t n)
{
    return fails(file, "truncate") ? -1 : REAL(ftruncate64)(file, n);
}
