/* What the `export` verbs do with the files that they wrote. */
#pragma once
#include "cli/cli.h"

/* files: a path a line. Each goes with size and hash into the table `artifact`, unless results.db
 * is being written to or cannot be: *recorded (may be NULL) says so. surface_id: whole, or NULL. */
void cli_record(const Cli *cli, const Text *files, const char *kind, const char *surface_id,
                bool *recorded);

/* The same of a run, whole id. */
void cli_record_of_run(const Cli *cli, const Text *files, const char *kind, const char *run_id);

/* files: a path a line. They go to stdout, and into the table `artifact` with size and hash unless
 * results.db is being written to or cannot be. surface_id: whole, or NULL. */
Status cli_written(const Cli *cli, const Text *files, const char *kind, const char *surface_id,
                   Error *error);
