/* Any bytes as a run's config, after a NUL one override: refused, or cells that are shown, and
 * read back from what is shown, as the same. */
#include <stdlib.h>
#include <string.h>

#include "experiments/config.h"
#include "experiments/grid.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/memory.h"

/* What is stored of a run must give its settings back. */
static void check_cell(const RunSpec *spec)
{
    static RunSpec again;
    Text shown = {0}, shown_again = {0};
    config_show(spec, NULL, &shown);
    Error error = {{0}};
    if (spec_from_json(&again, text_string(&shown), &error) != STATUS_OK) {
        fprintf(stderr, "%s\n%s\n", text_string(&shown), error.message);
        abort();
    }
    config_show(&again, NULL, &shown_again);
    if (strcmp(text_string(&shown), text_string(&shown_again)) != 0) {
        fprintf(stderr, "%s\n%s\n", text_string(&shown), text_string(&shown_again));
        abort();
    }
    text_release(&shown);
    text_release(&shown_again);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static RunSpec spec;
    char path[64];
    Config *config;
    const uint8_t *rest;
    size_t n_rest, n_config = first_part(&rest, &n_rest, bytes, n), n_cells;
    char *override = malloc(n_rest + 1);
    if (!override) {
        abort();
    }
    memcpy(override, rest, n_rest);
    override[n_rest] = 0;
    memory_file(path, bytes, n_config);
    const char *overrides[] = {override};
    Status status = config_read(&config, path, overrides, n_rest > 0, "", NULL);
    if (status == STATUS_OK) {
        Text shown = {0};
        config_show(&config->base, config, &shown);
        text_release(&shown);
        if (grid_count(&n_cells, config, NULL) == STATUS_OK &&
            grid_cell(&spec, config, n_cells - 1, NULL) == STATUS_OK) {
            grid_label(config, &spec, n_cells - 1, &shown);
            text_release(&shown);
            check_cell(&spec);
        }
        config_free(config);
    } else if (status != STATUS_USAGE) {
        abort();
    }
    free(override);
    return 0;
}
