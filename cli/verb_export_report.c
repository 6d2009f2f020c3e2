/* tinylora export report */
#include "cli/options.h"
#include "cli/verbs.h"
#include "core/file.h"
#include "core/sha256.h"
#include "notebooks-export/report.h"
#include "results/store_surface.h"

enum { WAIT_MS = 300 }; /* for one that writes now and then; not for a run of hours */

/* Beside the page itself; a database that cannot be written loses only this line. */
static void record(const Cli *cli, const char *path, const Text *html)
{
    Store *store;
    Error ignored;
    char sha256[SHA256_HEX_SIZE];
    if (store_open(&store, cli->db, STORE_SHARED, WAIT_MS, &ignored) == STATUS_OK) {
        sha256_bytes(sha256, html->bytes, html->n);
        store_artifact(store, NULL, NULL, "report", path, (int64_t)html->n, sha256, cli_now_s(),
                       &ignored);
        store_close(store);
    }
}

static int interrupted(void *context)
{
    (void)context;
    return cli_stopping();
}

static Status run(Cli *cli, int argc, char **argv, Error *error)
{
    OptionList experiments = {0}, surfaces = {0};
    const char *path = "report.html";
    const Option options[] = {
        {"--experiment", OPTION_LIST, &experiments, 0, 0},
        {"--surface", OPTION_LIST, &surfaces, 0, 0},
        {"--out", OPTION_TEXT, &path, 0, 0},
    };
    Store *store;
    Text html = {0};
    Status status = options_parse(cli, options, 3, argc, argv, NULL, 0, 0, error);
    status = status ? status : cli_open_store(cli, &store, error);
    if (status) {
        return status;
    }
    store_interrupt(store, interrupted, NULL);
    const ReportRequest request = {.store = store,
                                   .experiments = experiments.values,
                                   .n_experiments = experiments.n,
                                   .surfaces = surfaces.values,
                                   .n_surfaces = surfaces.n,
                                   .version = TINYLORA_VERSION};
    status = report_build(&html, &request, error);
    store_close(store);
    status = status ? status : file_write(path, html.bytes, html.n, error);
    if (!status) {
        record(cli, path, &html);
        cli_note(cli, "%s: %.1f MB, opens in any browser", path, (double)html.n / 1e6);
    }
    text_release(&html);
    return status;
}

const Verb verb_export_report = {
    .name = "export report",
    .summary = "one HTML page of runs, curves and surfaces that needs no network",
    .usage = "[--experiment E ...] [--surface ID ...] [--out FILE]",
    .help =
        "  --experiment E   of this experiment (may come again); all of results.db unless given\n"
        "  --surface ID     of this surface (may come again): a surface_id, the start of one, or "
        "an\n"
        "                   experiment that has one surface; all of the experiments unless given\n"
        "  --out FILE       where the page is written; report.html unless given\n\n"
        "The same results.db gives the same bytes.\n\n"
        "examples:\n"
        "  tinylora export report\n"
        "  tinylora export report --experiment budget13-lr --out budget13.html\n",
    .run = run,
};
