/* tinylora show RUN */
#include <stdlib.h>

#include "cli/options.h"
#include "cli/verbs.h"

static Status run(Cli *cli, int argc, char **argv, Error *error)
{
    const char *id;
    Store *store;
    StoredRun stored = {0};
    Text out = {0};
    Status status = options_parse(cli, NULL, 0, argc, argv, &id, 1, 1, error);
    status = status ? status : cli_open_store(cli, &store, error);
    if (status) {
        return status;
    }
    status = store_find_run(store, id, &stored, error);
    if (!status) {
        status = query_run(store, "SELECT section, key, value FROM run_show WHERE run_id = ?1",
                           &stored.run_id, 1, cli->format, &out, error);
    }
    status = status ? status : cli_write(text_string(&out), out.n, error);
    text_release(&out);
    free(stored.block);
    store_close(store);
    return status;
}

const Verb verb_show = {
    .name = "show",
    .summary = "all that is known of a run",
    .usage = "RUN",
    .help = "RUN is a run_id or the start of one that no other run shares.\n\n"
            "examples:\n"
            "  tinylora show 3f2a\n"
            "  tinylora show 3f2a91b07c55d1e0 -o md\n",
    .run = run,
};
