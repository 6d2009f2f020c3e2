/* What verbs share: writing results, opening a model or results.db, tables. */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "core/file.h"
#include "experiments/config.h"
#include "experiments/model_lock.h"
#include "experiments/nearest.h"
#include "results/frame.h"

static Status written(bool done, Error *error)
{
    return done ? STATUS_OK
                : error_set(error, STATUS_FAILED, "writing the result: %s", strerror(errno));
}

Status cli_write(const char *bytes, size_t n, Error *error)
{
    return written(fwrite(bytes, 1, n, stdout) == n, error);
}

Status cli_write_now(const char *bytes, size_t n, Error *error)
{
    return written(fwrite(bytes, 1, n, stdout) == n && fflush(stdout) == 0, error);
}

void cli_note(const Cli *cli, const char *format, ...)
{
    if (!cli->quiet) {
        va_list arguments;
        va_start(arguments, format);
        vfprintf(stderr, format, arguments);
        va_end(arguments);
        fputc('\n', stderr);
    }
}

Status cli_model_directory(const Cli *cli, char directory[CONFIG_PATH], const char *name,
                           Error *error)
{
    if (!name) {
        return error_set(error, STATUS_USAGE, "--model: a model is missing");
    }
    Status status = model_find(directory, name, cli->models, error);
    return status ? status : model_lock_check(cli->lock, directory, error);
}

static int interrupted(void *context)
{
    (void)context;
    return cli_stopping();
}

Status cli_open_store(const Cli *cli, Store **store, Error *error)
{
    if (!file_exists(cli->db)) {
        return error_set(error, STATUS_FAILED, "\"%s\": there are no results yet", cli->db);
    }
    Status status = store_open(store, cli->db, STORE_READ, 0, error);
    if (!status) {
        store_interrupt(*store, interrupted, NULL);
    }
    return status;
}

Status cli_check_experiment(Store *store, const char *experiment, Error *error)
{
    Frame names = {0};
    Status status =
        frame_read(&names, store, "SELECT name FROM experiment ORDER BY name", NULL, 0, error);
    const char **known = calloc(names.n_rows + 1, sizeof *known);
    bool found = false;
    for (size_t i = 0; !status && known && i < names.n_rows; i++) {
        known[i] = frame_text(&names, "name", i);
        found = found || strcmp(known[i], experiment) == 0;
    }
    if (!status && !found) {
        const char *nearest = known ? nearest_name(experiment, known, names.n_rows) : NULL;
        status = error_set(error, STATUS_USAGE, "there is no experiment \"%.100s\"%s%.100s%s",
                           experiment, nearest ? "; the nearest one is \"" : "",
                           nearest ? nearest : "", nearest ? "\"" : "");
    }
    free(known);
    frame_release(&names);
    return status;
}

Status cli_query(const Cli *cli, const char *sql, const char *const *binds, size_t n_binds,
                 Error *error)
{
    Store *store;
    Text out = {0};
    Status status = cli_open_store(cli, &store, error);
    if (status) {
        return status;
    }
    status = query_run(store, sql, binds, n_binds, cli->format, &out, error);
    status = status ? status : cli_write(text_string(&out), out.n, error);
    text_release(&out);
    store_close(store);
    return status;
}
