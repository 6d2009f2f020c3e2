/* What every verb shares: the global options, the world outside (clock, signals, terminal), and the
 * shape of a verb. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "core/status.h"
#include "core/text.h"
#include "experiments/settings.h"
#include "results/query.h"
#include "results/store.h"

enum { CLI_WAIT_MS = 10000 }; /* for another writer of results.db to leave */

typedef struct {
    const char *program; /* argv[0] */
    const char *db;      /* results.db */
    bool db_given;
    int n_threads;
    OutputFormat format;
    bool format_given;
    bool quiet;
    bool locked;            /* models must be as models.lock has them, */
    struct ModelLock *lock; /* which is opened when that is asked for; else NULL */
    const char *models;     /* folders of embedded models, divided by ':' */
    const char *data;       /* "?data.folder=DIR", an override for configs; NULL: none */
    const char *cache;      /* folder of cached factors; NULL: none */
    bool terminal;          /* stderr can be rewritten in place */
} Cli;

typedef struct {
    const char *name;    /* one or two words */
    const char *summary; /* one line for the list of verbs */
    const char *usage;   /* what follows the name */
    const char *help;    /* options, then two examples */
    Status (*run)(Cli *cli, int argc, char **argv, Error *error); /* arguments after the name */
    bool audited; /* it works on results.db: what it refuses is told there */
} Verb;

extern const Verb *const verbs[];
extern const int n_verbs;

/* Set once a signal or the time limit asks to stop. */
bool cli_stopping(void);
double cli_now_s(void);   /* since 1970; may jump */
double cli_clock_s(void); /* for differences: never jumps */
void cli_arm_max_time(double seconds); /* from now on; 0: none */

/* Results: text to stdout. Errors: STATUS_FAILED when stdout does not take it. */
Status cli_write(const char *bytes, size_t n, Error *error);
/* The same, and whoever reads has it. */
Status cli_write_now(const char *bytes, size_t n, Error *error);
/* A line to stderr unless --quiet; never fails. */
void cli_note(const Cli *cli, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Where MODEL of the command line lies. name: NULL when it was not given. Errors: STATUS_USAGE,
 * STATUS_REFUSED. */
Status cli_model_directory(const Cli *cli, char directory[CONFIG_PATH], const char *name,
                           Error *error);
/* results.db for reading; it must exist. A signal ends its queries. Errors: STATUS_FAILED. */
Status cli_open_store(const Cli *cli, Store **store, Error *error);
/* Is there an experiment of that name? Errors: STATUS_USAGE, with the nearest name that there is.
 */
Status cli_check_experiment(Store *store, const char *experiment, Error *error);
/* A read-only statement, its answer on stdout in the format asked for. */
Status cli_query(const Cli *cli, const char *sql, const char *const *binds, size_t n_binds,
                 Error *error);
