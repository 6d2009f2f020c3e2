/* tinylora show RUN | SURFACE */
#include <stdlib.h>
#include <string.h>

#include "cli/options.h"
#include "cli/verbs.h"
#include "results/store_surface.h"

/* What the id means: a run, else a surface. A whole id means itself. */
static Status find(StoredRun *run, StoredSurface *surface, Store *store, const char *id,
                   Error *error)
{
    Error no_run = {0}, no_surface = {0};
    Status of_run = store_find_run(store, id, run, &no_run);
    Status of_surface = store_find_surface(store, id, surface, &no_surface);
    if (!of_run && !of_surface && strcmp(run->run_id, id) != 0 &&
        strcmp(surface->surface_id, id) != 0) {
        return error_set(error, STATUS_USAGE, "\"%s\" begins run %s and means surface %s", id,
                         run->run_id, surface->surface_id);
    }
    if ((of_run && of_run != STATUS_USAGE) || (of_surface && of_surface != STATUS_USAGE)) {
        return of_run && of_run != STATUS_USAGE
                   ? error_set(error, of_run, "%s", no_run.message)
                   : error_set(error, of_surface, "%s", no_surface.message);
    }
    if (of_run && of_surface) {
        const char *words = strstr(no_surface.message, "\": "); /* after the file, said already */
        return error_set(error, STATUS_USAGE, "%s; %s", no_run.message, words ? words + 3 : "");
    }
    return STATUS_OK;
}

static Status run(Cli *cli, int argc, char **argv, Error *error)
{
    const char *id;
    Store *store;
    StoredRun stored = {0};
    StoredSurface surface = {0};
    Text out = {0};
    Status status = options_parse(cli, NULL, 0, argc, argv, &id, 1, 1, error);
    status = status ? status : cli_open_store(cli, &store, error);
    if (status) {
        return status;
    }
    status = find(&stored, &surface, store, id, error);
    bool of_run = stored.block && (!surface.block || strcmp(stored.run_id, id) == 0);
    if (!status && of_run) {
        status = query_run(store, "SELECT section, key, value FROM run_show WHERE run_id = ?1",
                           &stored.run_id, 1, cli->format, &out, error);
    } else if (!status) {
        status =
            query_run(store, "SELECT section, key, value FROM surface_show WHERE surface_id = ?1",
                      &surface.surface_id, 1, cli->format, &out, error);
    }
    status = status ? status : cli_write(text_string(&out), out.n, error);
    text_release(&out);
    free(stored.block);
    free(surface.block);
    store_close(store);
    return status;
}

const Verb verb_show = {
    .name = "show",
    .summary = "all that is known of a run or a surface",
    .usage = "RUN | SURFACE",
    .help =
        "RUN is a run_id or the start of one that no other run shares, SURFACE likewise, or an\n"
        "experiment that has one surface.\n\n"
        "examples:\n"
        "  tinylora show 3f2a\n"
        "  tinylora show abacus-surface -o md\n",
    .run = run,
};
