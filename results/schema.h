/* The schema of results.db: schema.sql, and schema_2.sql ... that make room for it in files of
 * older versions. Private to results/ and its tests. */
#pragma once
#include "results/database.h"

enum { SCHEMA_VERSION = 4, SCHEMA_APPLICATION_ID = 1953264177 };

/* All of schema.sql in an empty database, one transaction. */
Status schema_create(Database *database, Error *error);

/* *version: user_version, 1 .. SCHEMA_VERSION. Errors: STATUS_REFUSED for a file that is not ours,
 * of a newer schema, without the tables and views of its version, or damaged. Reads only. */
Status schema_check(Database *database, int *version, Error *error);

/* From the file's version to SCHEMA_VERSION, one transaction: schema_2.sql ... drop what is made
 * anew and add columns, then schema.sql makes what is missing, so that the result is a new file's
 * schema. Nothing to do: nothing is written. Errors: as it was, STATUS_FAILED. */
Status schema_upgrade(Database *database, Error *error);
