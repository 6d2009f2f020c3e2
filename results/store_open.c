/* Opening results.db: who may, whether it is ours, which journal.
 *
 * 1. A file appears whole: it is made as "<path>-new" with its schema and renamed. So an empty file
 * is never ours.
 * 2. Whoever writes or checkpoints holds the lock on "<path>-lock" (store_lock.c): STORE_WRITE from
 * before the first look at the file until after the last close, STORE_SHARED for one transaction
 * and its automatic checkpoint at a time. That is what SQLite up to 3.51.2 needs to be safe in WAL
 * mode.
 * 3. Readers open read-only, with automatic checkpoints and the checkpoint at close switched off.
 * 4. The database file itself is never opened but by SQLite: closing any descriptor of it would
 * drop SQLite's locks. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <time.h>
#include <unistd.h>

#include "results/schema.h"
#include "results/store_private.h"

enum { CLOSE_WAIT_MS = 500 };

Status store_fail(const Store *store, Status status, Error *error)
{
    return status == STATUS_OK ? status : error_context(error, status, "\"%s\"", store->path);
}

bool store_is_network_file_system(unsigned long magic)
{
    static const unsigned magics[] = {
        0x6969,     /* NFS */
        0x517b,     /* SMB */
        0xff534d42, /* CIFS */
        0xfe534d42, /* SMB2 */
        0x65735546, /* FUSE: sshfs and the like */
        0x01021997, /* 9P */
        0x0bd00bd0, /* Lustre */
        0x00c36400, /* Ceph */
        0x47504653, /* GPFS */
        0x19830326, /* BeeGFS */
        0x5346414f, /* AFS */
        0x6b414653, /* kAFS */
        0x73757245, /* Coda */
        0xaad7aaea, /* PanFS */
        0x01161970, /* GFS2 */
        0x7461636f, /* OCFS2 */
        0x20030528, /* OrangeFS */
        0x786f4256, /* VirtualBox shared folders */
    };
    for (size_t i = 0; i < sizeof magics / sizeof *magics; i++) {
        if ((unsigned)magic == magics[i]) {
            return true;
        }
    }
    return false;
}

static bool exists(const char *path, const char *suffix, off_t *n_bytes)
{
    Text name = {0};
    text_printf(&name, "%s%s", path, suffix);
    struct stat info;
    bool found = stat(name.bytes, &info) == 0;
    if (found && n_bytes) {
        *n_bytes = info.st_size;
    }
    text_release(&name);
    return found;
}

/* One name for one file, so that links to it share the lock. malloc'ed; the folder must exist. */
static char *resolve(const char *path)
{
    char *whole = realpath(path, NULL);
    if (whole || errno != ENOENT) {
        return whole;
    }
    char *copy = strdup(path);
    char *slash = copy ? strrchr(copy, '/') : NULL;
    if (slash) {
        *slash = 0;
    }
    char *folder = copy ? realpath(slash == copy ? "/" : slash ? copy : ".", NULL) : NULL;
    Text name = {0};
    if (folder) {
        text_printf(&name, "%s/%s", folder[1] ? folder : "", slash ? slash + 1 : path);
    }
    free(folder);
    free(copy);
    return name.bytes;
}

/* The journal is decided by looking at the file system; both keep what was committed through a
 * power cut. */
static Status set_journal(Database *database, bool network, Error *error)
{
    return database_execute(database,
                            network ? "PRAGMA journal_mode = DELETE; PRAGMA synchronous = EXTRA;"
                                    : "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;",
                            error);
}

Status store_sync_folder(const char *path, Error *error)
{
    Text folder = {0};
    const char *slash = strrchr(path, '/');
    text_append(&folder, slash ? path : ".", slash ? (size_t)(slash - path) + 1 : 1);
    int file = open(folder.bytes, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    text_release(&folder);
    int code = file < 0 ? -1 : fsync(file);
    Status status = STATUS_OK;
    if (code != 0) {
        status = error_set(error, STATUS_FAILED, "cannot sync its folder: %s", strerror(errno));
    }
    if (file >= 0) {
        close(file);
    }
    return status;
}

static Status create(Store *store, Error *error)
{
    Text new_name = {0}, journal = {0};
    text_printf(&new_name, "%s-new", store->path);
    text_printf(&journal, "%s-new-journal", store->path);
    unlink(new_name.bytes); /* of a process that was killed here; we hold the lock */
    unlink(journal.bytes);
    Database *database = NULL;
    Status status = database_open(&database, new_name.bytes, DATABASE_CREATE, error);
    if (status == STATUS_OK) {
        status = database_execute(database, "PRAGMA synchronous = FULL", error);
    }
    if (status == STATUS_OK) {
        status = schema_create(database, error);
    }
    database_close(database);
    if (status == STATUS_OK && rename(new_name.bytes, store->path) != 0) {
        status = error_set(error, STATUS_FAILED, "cannot be created: %s", strerror(errno));
    }
    if (status == STATUS_OK) {
        status = store_sync_folder(store->path, error);
    } else {
        unlink(new_name.bytes);
        unlink(journal.bytes);
    }
    text_release(&new_name);
    text_release(&journal);
    return status;
}

/* The state of the file before SQLite touches it. */
static Status look(Store *store, Error *error)
{
    off_t n_bytes = 0;
    bool there = exists(store->path, "", &n_bytes);
    if (there && n_bytes == 0) {
        return error_set(error, STATUS_REFUSED,
                         "the file is empty (0 bytes), not a results.db; delete it to begin anew");
    }
    if (there) {
        return STATUS_OK;
    }
    if (store->mode == STORE_READ) {
        return error_set(error, STATUS_FAILED, "no such file; the first run creates it");
    }
    const char *orphan = exists(store->path, "-wal", NULL)       ? "-wal"
                         : exists(store->path, "-journal", NULL) ? "-journal"
                                                                 : NULL;
    if (orphan) {
        return error_set(error, STATUS_REFUSED,
                         "the file is gone but its \"%s\" file, which may hold results, is still "
                         "there; put the database back or delete both",
                         orphan);
    }
    return create(store, error);
}

static Status open_database(Store *store, Error *error)
{
    bool reading = store->mode == STORE_READ;
    Status status = database_open(&store->database, store->path,
                                  reading ? DATABASE_READ : DATABASE_WRITE, error);
    int64_t id = 0;
    if (status == STATUS_OK && reading && !exists(store->path, "-wal", NULL) &&
        database_number(store->database, "PRAGMA application_id", &id, NULL) == STATUS_FAILED) {
        /* A WAL database without its -wal in a folder where we may not write: nobody else writes it
         * now. */
        database_close(store->database);
        store->database = NULL;
        status = database_open(&store->database, store->path, DATABASE_IMMUTABLE, error);
    }
    if (status == STATUS_OK) {
        status = schema_check(store->database, &store->opened_version, error);
    }
    if (status == STATUS_OK && reading && store->opened_version < SCHEMA_VERSION) {
        return error_set(error, STATUS_REFUSED,
                         "schema version %d is older than this program's %d; `tinylora db upgrade` "
                         "widens it",
                         store->opened_version, SCHEMA_VERSION);
    }
    if (status == STATUS_OK && !reading) {
        status = set_journal(store->database, store->network, error);
    }
    if (status == STATUS_OK && !reading) {
        status = schema_upgrade(store->database, error);
    }
    return status;
}

Status store_open(Store **out, const char *path, StoreMode mode, int wait_ms, Error *error)
{
    Store *store = calloc(1, sizeof *store);
    if (!store) {
        return error_set(error, STATUS_FAILED, "out of memory");
    }
    store->lock_file = -1;
    store->mode = mode;
    store->wait_ms = wait_ms;
    store->path = resolve(path);
    if (!store->path) {
        free(store);
        return error_set(error, STATUS_FAILED, "\"%s\": %s", path, strerror(errno));
    }
    Status status = STATUS_OK;
    if (mode != STORE_READ) {
        status = store_lock(store, wait_ms, error);
    }
    if (status == STATUS_OK) {
        status = look(store, error);
    }
    struct statfs file_system;
    if (status == STATUS_OK && statfs(store->path, &file_system) == 0) {
        store->network = store_is_network_file_system((unsigned long)file_system.f_type);
    }
    if (status == STATUS_OK) {
        status = open_database(store, error);
    }
    if (status != STATUS_OK) {
        error_context(error, status, "\"%s\"", path);
        store_close(store);
        return status;
    }
    if (mode == STORE_SHARED) {
        store_unlock(store);
    }
    *out = store;
    return STATUS_OK;
}

Status store_open_memory(Store **out, Error *error)
{
    Store *store = calloc(1, sizeof *store);
    if (!store) {
        return error_set(error, STATUS_FAILED, "out of memory");
    }
    store->lock_file = -1;
    store->mode = STORE_WRITE;
    store->opened_version = SCHEMA_VERSION;
    store->path = strdup("(memory)");
    Status status = database_open(&store->database, "", DATABASE_MEMORY, error);
    status = status ? status : schema_create(store->database, error);
    if (status) {
        store_close(store);
        return status;
    }
    *out = store;
    return STATUS_OK;
}

void store_close(Store *store)
{
    if (!store) {
        return;
    }
    if (store->mode == STORE_SHARED && store->database && !store->locked &&
        store_lock(store, CLOSE_WAIT_MS, NULL) != STATUS_OK) {
        database_keep_log(store->database); /* whoever holds the lock will checkpoint */
    }
    database_close(store->database); /* the last writer's checkpoint happens here, under the lock */
    if (store->lock_file >= 0) {
        close(store->lock_file);
    }
    free(store->path);
    free(store);
}

bool store_on_network(const Store *store)
{
    return store->network;
}

void store_versions(const Store *store, int *opened, int *current)
{
    *opened = store->opened_version;
    *current = SCHEMA_VERSION;
}

void store_interrupt(Store *store, int (*stop)(void *), void *context)
{
    database_interrupt(store->database, stop, context);
}
