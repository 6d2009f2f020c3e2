/* The schema of results.db: schema.sql (version 1) and what was added since. Private to results/
 * and its tests. */
#pragma once
#include "results/database.h"

enum { SCHEMA_VERSION = 2, SCHEMA_APPLICATION_ID = 1953264177 };

/* All of schema.sql in an empty database, one transaction. */
Status schema_create(Database *database, Error *error);

/* *version: user_version, 1 .. SCHEMA_VERSION. Errors: STATUS_REFUSED for a file that is not ours,
 * of a newer schema, without our tables, or damaged. Reads only. */
Status schema_check(Database *database, int *version, Error *error);

/* From the file's version to `to`: migrations[v] leads from v to v + 1, each in one transaction
 * that also sets user_version. Additive: columns, tables, views. schema_migrations: the program's
 * own, (SCHEMA_VERSION). */
Status schema_upgrade(Database *database, const char *const *migrations, int to, Error *error);
extern const char *const schema_migrations[SCHEMA_VERSION];
