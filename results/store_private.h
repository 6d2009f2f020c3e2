/* What the store_*.c and query.c share. Private to results/. */
#pragma once
#include "results/database.h"
#include "results/store.h"

struct Store {
    Database *database;
    char *path;
    StoreMode mode;
    int lock_file; /* -1 for a reader */
    bool network;  /* rollback journal instead of WAL */
};

/* "path: " before the message. */
Status store_fail(const Store *store, Status status, Error *error);

/* The bytes as hex digits (query.c). */
void value_add_hex(Text *out, Value value);
