/* What the store_*.c, query.c and frame.c share. Private to results/. */
#pragma once
#include "results/database.h"
#include "results/store.h"

struct Store {
    Database *database;
    char *path;
    StoreMode mode;
    int wait_ms;
    int lock_file;      /* -1 for a reader */
    int opened_version; /* of the file's schema, before it was upgraded */
    bool locked;        /* we hold the writer's lock */
    bool unflushed;     /* in a transaction of store_begin_claim */
    bool network;       /* rollback journal instead of WAL */
};

/* "path: " before the message. */
Status store_fail(const Store *store, Status status, Error *error);

/* The writer's lock (store_lock.c). Errors: STATUS_FAILED naming the holder after wait_ms. */
Status store_lock(Store *store, int wait_ms, Error *error);
void store_unlock(Store *store);

/* A writer's transaction: BEGIN IMMEDIATE, with the writer's lock (STORE_SHARED takes it here). It
 * ends by store_finish, also when it failed to begin. */
Status store_begin(Store *store, Error *error);
/* The same for claims and heartbeats, which may be lost in a power cut. */
Status store_begin_claim(Store *store, Error *error);
/* Commits when status is OK, else rolls back and names the file; STORE_SHARED gives the lock back.
 */
Status store_finish(Store *store, Status status, Error *error);

RunState run_state_of(const char *name);

/* In a transaction of the caller. step: -1: none. */
Status store_insert_event(Store *store, const char *run_id, int64_t step, const char *kind,
                          const char *message, double now_s, Error *error);

/* "not a number", "infinite", "minus infinite". */
const char *nonfinite_name(double value);

/* The bytes as hex digits (query.c). */
void value_add_hex(Text *out, Value value);

/* So that a file made or renamed there survives a power cut (store_open.c). path: absolute, or in
 * the working directory. */
Status store_sync_folder(const char *path, Error *error);
