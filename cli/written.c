/* Artifacts: a file written is a fact about results.db, but never a reason to fail. */
#include "cli/written.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/sha256.h"
#include "results/store_surface.h"

enum { WAIT_MS = 200 }; /* for a writer that is just leaving */

static void record(Store *store, const char *path, const char *kind, const char *run_id,
                   const char *surface_id)
{
    struct stat info;
    char hex[SHA256_HEX_SIZE];
    char *whole = realpath(path, NULL);
    if (whole && stat(whole, &info) == 0 && sha256_file(hex, whole, NULL) == STATUS_OK) {
        store_artifact(store, run_id, surface_id, kind, whole, info.st_size, hex, cli_now_s(),
                       NULL);
    }
    free(whole);
}

static void record_files(const Cli *cli, const Text *files, const char *kind, const char *run_id,
                         const char *surface_id, bool *recorded)
{
    Store *store = NULL;
    Text path = {0};
    bool writable = store_open(&store, cli->db, STORE_SHARED, WAIT_MS, NULL) == STATUS_OK;
    for (const char *line = text_string(files); writable && *line;) {
        size_t n = strcspn(line, "\n");
        text_clear(&path);
        text_append(&path, line, n);
        record(store, text_string(&path), kind, run_id, surface_id);
        line += n + (line[n] == '\n');
    }
    if (writable) {
        store_close(store);
    }
    text_release(&path);
    if (recorded) {
        *recorded = writable;
    }
}

void cli_record(const Cli *cli, const Text *files, const char *kind, const char *surface_id,
                bool *recorded)
{
    record_files(cli, files, kind, NULL, surface_id, recorded);
}

void cli_record_of_run(const Cli *cli, const Text *files, const char *kind, const char *run_id)
{
    record_files(cli, files, kind, run_id, NULL, NULL);
}

Status cli_written(const Cli *cli, const Text *files, const char *kind, const char *surface_id,
                   Error *error)
{
    cli_record(cli, files, kind, surface_id, NULL);
    return cli_write(text_string(files), files->n, error);
}
