/* The writer's lock, a lock on the file "<path>-lock", and the transactions under it. STORE_WRITE
 * holds it from open to close, STORE_SHARED for one transaction at a time. The file is never
 * removed: another process may be waiting on it. */
#define _GNU_SOURCE /* open file description locks */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "results/store_private.h"

/* Open file description locks: they keep two stores of one process apart too, and end with the
 * process. */
static bool set_lock(int file, short type)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET};
    return fcntl(file, F_OFD_SETLK, &lock) == 0;
}

static Status open_lock_file(Store *store, Error *error)
{
    Text name = {0};
    Status status = STATUS_OK;
    text_printf(&name, "%s-lock", store->path);
    store->lock_file = open(name.bytes, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (store->lock_file < 0) {
        status =
            error_set(error, STATUS_FAILED, "cannot open \"%s\": %s", name.bytes, strerror(errno));
    }
    text_release(&name);
    return status;
}

Status store_lock(Store *store, int wait_ms, Error *error)
{
    if (store->lock_file < 0) {
        Status status = open_lock_file(store, error);
        if (status != STATUS_OK) {
            return status;
        }
    }
    bool locked = set_lock(store->lock_file, F_WRLCK);
    for (int waited_ms = 0, pause_ms = 1; !locked && waited_ms < wait_ms; waited_ms += pause_ms) {
        pause_ms = waited_ms < 20 ? 1 : 20; /* a transaction of another process ends soon */
        nanosleep(&(struct timespec){.tv_nsec = pause_ms * 1000000L}, NULL);
        locked = set_lock(store->lock_file, F_WRLCK);
    }
    char holder[320] = {0};
    if (!locked) {
        ssize_t n = pread(store->lock_file, holder, sizeof holder - 1, 0);
        return error_set(error, STATUS_FAILED, "another process writes to it (%s)",
                         n > 0 ? holder : "it has not told its name");
    }
    store->locked = true;
    char host[256] = "?";
    gethostname(host, sizeof host - 1);
    int n = snprintf(holder, sizeof holder, "pid %ld on %s", (long)getpid(), host);
    if (ftruncate(store->lock_file, 0) != 0 ||
        pwrite(store->lock_file, holder, (size_t)n, 0) != n) {
        Status status =
            error_set(error, STATUS_FAILED, "cannot write its lock file: %s", strerror(errno));
        store_unlock(store);
        return status;
    }
    return STATUS_OK;
}

void store_unlock(Store *store)
{
    if (store->locked) {
        set_lock(store->lock_file, F_UNLCK);
        store->locked = false;
    }
}

Status store_begin(Store *store, Error *error)
{
    Status status = STATUS_OK;
    if (store->mode == STORE_SHARED) {
        status = store_lock(store, store->wait_ms, error);
    }
    return status ? status : database_begin(store->database, error);
}

bool store_has_writer(const Store *store, Text *holder)
{
    Text name = {0};
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    text_printf(&name, "%s-lock", store->path);
    int file = open(name.bytes, O_RDONLY | O_CLOEXEC);
    text_release(&name);
    bool held = file >= 0 && fcntl(file, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
    char told[320];
    ssize_t n = held ? pread(file, told, sizeof told, 0) : 0;
    if (file >= 0) {
        close(file);
    }
    if (holder) {
        text_append(holder, told, n > 0 ? (size_t)n : 0);
    }
    return held;
}

/* In WAL mode a commit without a flush is whole and in its order, and the next one with a flush
 * makes it last. */
Status store_begin_claim(Store *store, Error *error)
{
    if (!store->network) {
        Status status = database_execute(store->database, "PRAGMA synchronous = NORMAL", error);
        if (status != STATUS_OK) {
            return status;
        }
        store->unflushed = true;
    }
    return store_begin(store, error);
}

Status store_finish(Store *store, Status status, Error *error)
{
    if (status == STATUS_OK) {
        status = database_commit(store->database, error);
    } else {
        database_rollback(store->database);
    }
    if (store->unflushed) {
        store->unflushed = false;
        Status flushing = database_execute(store->database, "PRAGMA synchronous = FULL", error);
        status = status ? status : flushing;
    }
    if (store->mode == STORE_SHARED) {
        store_unlock(store);
    }
    return store_fail(store, status, error);
}
