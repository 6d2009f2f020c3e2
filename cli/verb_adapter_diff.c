/* tinylora adapter diff */
#include <math.h>
#include <string.h>

#include "adapters/change.h"
#include "cli/options.h"
#include "cli/table.h"
#include "cli/use.h"
#include "cli/verbs.h"
#include "experiments/carry.h"

/* difference: NaN where there is none. */
static void add_row(Table *table, const char *section, const char *key, const char *a,
                    const char *b, double difference)
{
    table_cell(table, "%s", section);
    table_cell(table, "%s", key);
    table_cell(table, "%s", a);
    table_cell(table, "%s", b);
    if (isnan(difference)) {
        table_cell(table, "%s", "");
    } else {
        table_cell(table, "%.9g", difference);
    }
}

static void add_numbers(Table *table, const char *section, const char *key, double a, double b,
                        double difference)
{
    Text one = {0}, other = {0};
    text_printf(&one, "%.9g", a);
    text_printf(&other, "%.9g", b);
    add_row(table, section, key, text_string(&one), text_string(&other), difference);
    text_release(&one);
    text_release(&other);
}

static void add_settings(Table *table, const RunSpec *a, const RunSpec *b)
{
    for (size_t i = 0; i < settings_count(); i++) {
        const Setting *setting = setting_at(i);
        Text one = {0}, other = {0};
        bool ours = strncmp(setting->path, "adapter.", 8) == 0;
        if (ours && setting_applies(a, setting)) {
            setting_value_json(a, setting, 0, &one);
        }
        if (ours && setting_applies(b, setting)) {
            setting_value_json(b, setting, 0, &other);
        }
        if (one.n || other.n) {
            add_row(table, "setting", setting->path, text_string(&one), text_string(&other), NAN);
        }
        text_release(&one);
        text_release(&other);
    }
}

static void add_values(Table *table, const RunAdapter *a, const RunAdapter *b)
{
    double largest = a->n == b->n ? 0 : NAN, norms[2] = {0, 0};
    for (size_t i = 0; i < a->n; i++) {
        norms[0] += (double)a->v[i] * (double)a->v[i];
    }
    for (size_t i = 0; i < b->n; i++) {
        norms[1] += (double)b->v[i] * (double)b->v[i];
    }
    for (size_t i = 0; a->n == b->n && i < a->n; i++) {
        largest = fmax(largest, fabs((double)a->v[i] - (double)b->v[i]));
    }
    add_numbers(table, "values", "parameters", (double)a->n, (double)b->n, NAN);
    add_numbers(table, "values", "norm of v; largest difference", sqrt(norms[0]), sqrt(norms[1]),
                largest);
}

/* Norms of W' - W of both, and the largest difference of an element. */
static Status add_module(Table *table, const Use *uses, Module module, Error *error)
{
    Change changes[2] = {{0}, {0}};
    double norms[2] = {0, 0}, largest = 0;
    char name[96];
    Status status = STATUS_OK;
    for (int k = 0; k < 2 && !status; k++) {
        status =
            change_open(&changes[k], uses[k].session.bank, 1, uses[k].adapter.v, module, error);
    }
    for (int row = 0; row < changes[0].n_out && !status; row++) {
        const double *rows[2] = {change_row(&changes[0], row), change_row(&changes[1], row)};
        for (int i = 0; i < changes[0].n_in; i++) {
            double one = rows[0] ? rows[0][i] : 0, other = rows[1] ? rows[1][i] : 0;
            norms[0] += one * one;
            norms[1] += other * other;
            largest = fmax(largest, fabs(one - other));
        }
    }
    if (!status && (norms[0] > 0 || norms[1] > 0)) {
        module_name(name, module.layer, module.role);
        add_numbers(table, "module", name, sqrt(norms[0]), sqrt(norms[1]), largest);
    }
    change_close(&changes[0]);
    change_close(&changes[1]);
    return status;
}

static Status compare(const Cli *cli, const Use *uses, Error *error)
{
    Table table = {0};
    Text out = {0};
    const Model *model = uses[0].session.bench.model;
    Status status = STATUS_OK;
    if (strcmp(model_weights_sha256(model), model_weights_sha256(uses[1].session.bench.model)) !=
        0) {
        return error_set(error, STATUS_USAGE,
                         "%s and %s are of different models: weights %.12s.. and %.12s..",
                         uses[0].adapter.name, uses[1].adapter.name, model_weights_sha256(model),
                         model_weights_sha256(uses[1].session.bench.model));
    }
    table_column(&table, "section", false);
    table_column(&table, "key", false);
    table_column(&table, "a", false);
    table_column(&table, "b", false);
    table_column(&table, "difference", true);
    add_settings(&table, &uses[0].adapter.spec, &uses[1].adapter.spec);
    add_values(&table, &uses[0].adapter, &uses[1].adapter);
    for (int layer = 0; layer < model->config.n_layers; layer++) {
        for (int role = 0; role < N_ROLES && !status; role++) {
            status = add_module(&table, uses, (Module){layer, (Role)role}, error);
        }
    }
    if (!status) {
        table_print(&table, cli->format, &out);
        status = cli_write(text_string(&out), out.n, error);
    }
    text_release(&out);
    table_release(&table);
    return status;
}

static Status run(Cli *cli, int argc, char **argv, Error *error)
{
    const char *words[2], *model = NULL;
    const Option options[] = {{"--model", OPTION_TEXT, &model, 0, 0}};
    Use uses[2] = {0};
    Status status = options_parse(cli, options, 1, argc, argv, words, 2, 2, error);
    /* A run knows its model; a folder is opened on that of the other one. */
    bool folders[2] = {!status && carry_is_adapter(words[0]),
                       !status && carry_is_adapter(words[1])};
    int first = folders[0] && !folders[1] ? 1 : 0;
    for (int k = 0; k < 2 && !status; k++) {
        int side = k == 0 ? first : 1 - first;
        const char *other = k == 1 ? uses[first].adapter.spec.model : NULL;
        UseOptions named = {.model = model           ? model
                                     : folders[side] ? other
                                                     : NULL,
                            .run = folders[side] ? NULL : words[side],
                            .adapter = folders[side] ? words[side] : NULL,
                            .pinned = true};
        status = use_open_adapter(&uses[side], cli, &named, error);
    }
    status = status ? status : compare(cli, uses, error);
    use_close(&uses[0]);
    use_close(&uses[1]);
    return status;
}

const Verb verb_adapter_diff = {
    .name = "adapter diff",
    .summary = "two adapters side by side: settings, scalars, and what they do to each weight",
    .usage = "A B [--model MODEL]",
    .help = "A and B: stored runs or folders of adapters. Rows \"setting\": adapter.* of both; "
            "\"values\": how\nmany scalars, their norm, the largest difference of v; \"module\": "
            "the norm of W' - W of both and\nthe largest difference of an element.\n\n"
            "  --model MODEL     the base model, where neither is a run\n\n"
            "examples:\n"
            "  tinylora adapter diff 3f2a 81bc\n"
            "  tinylora adapter diff 3f2a my-lora -o json\n",
    .run = run,
};
