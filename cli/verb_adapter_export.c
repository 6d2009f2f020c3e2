/* tinylora adapter export */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/options.h"
#include "cli/table.h"
#include "cli/use.h"
#include "cli/verbs.h"
#include "cli/written.h"
#include "core/file.h"
#include "experiments/carry.h"

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The files that a path is or has in it, a path a line, sorted; their bytes. */
static int64_t list_files(Text *files, const char *path)
{
    struct stat info;
    int64_t n_bytes = 0;
    char *names[64];
    size_t n = 0;
    DIR *folder = opendir(path);
    if (!folder) {
        text_printf(files, "%s\n", path);
        return stat(path, &info) == 0 ? info.st_size : 0;
    }
    for (struct dirent *entry; n < 64 && (entry = readdir(folder)) != NULL;) {
        if (entry->d_name[0] != '.') {
            names[n++] = strdup(entry->d_name);
        }
    }
    closedir(folder);
    qsort(names, n, sizeof *names, by_name);
    for (size_t i = 0; i < n; i++) {
        char file[FILE_PATH_MAX];
        if (path_join(file, path, names[i], NULL) == STATUS_OK && stat(file, &info) == 0) {
            text_printf(files, "%s\n", file);
            n_bytes += info.st_size;
        }
        free(names[i]);
    }
    return n_bytes;
}

static Status print_report(const Cli *cli, const Use *use, const CarryOptions *options,
                           const CarryReport *report, int64_t n_bytes, Error *error)
{
    Table table = {0};
    Text out = {0};
    const MergeReport *merge = &report->merge;
    table_column(&table, "format", false);
    table_column(&table, "path", false);
    table_column(&table, "run_id", false);
    table_column(&table, "method", false);
    table_column(&table, "parameters", true);
    table_column(&table, "bytes", true);
    if (options->format == CARRY_BYTES) {
        table_column(&table, "largest_rounding", true);
    }
    if (options->format == CARRY_MERGED) {
        table_column(&table, "largest_change", true);
        table_column(&table, "largest_rounding", true);
        table_column(&table, "rounded_at", false);
        table_column(&table, "kept", true);
        table_column(&table, "weights", true);
        table_column(&table, "weights_changed", true);
    }
    table_cell(&table, "%s", carry_format_names[options->format]);
    table_cell(&table, "%s", options->path);
    table_cell(&table, "%s", use->adapter.run_id);
    table_cell(&table, "%s", use->adapter.spec.adapter.method);
    table_cell(&table, "%zu", use->adapter.n);
    table_cell(&table, "%lld", (long long)n_bytes);
    if (options->format == CARRY_BYTES) {
        table_cell(&table, "%.9g", report->rounding);
    }
    if (options->format == CARRY_MERGED) {
        table_cell(&table, "%.9g", merge->largest_change);
        table_cell(&table, "%.9g", merge->largest_rounding);
        table_cell(&table, "%s", merge->largest_at);
        table_cell(&table, "%.6g", merge->kept);
        table_cell(&table, "%zu", merge->n_adapted);
        table_cell(&table, "%zu", merge->n_changed);
    }
    table_print(&table, cli->format, &out);
    Status status = cli_write(text_string(&out), out.n, error);
    text_release(&out);
    table_release(&table);
    return status;
}

/* What of the adapter a format does not hold. */
static void warn(const Cli *cli, const CarryOptions *options, const CarryReport *report)
{
    if (options->format == CARRY_MERGED && report->merge.kept < 0.99) {
        cli_note(cli,
                 "the weights' own type holds %.0f %% of the change: small changes are rounded "
                 "away; peft-lora and bytes are exact",
                 100 * report->merge.kept);
    }
    if (options->dtype && report->rounding > 0) {
        cli_note(cli, "v was rounded by up to %.3g; --dtype f32 is exact", report->rounding);
    }
}

static Status run(Cli *cli, int argc, char **argv, Error *error)
{
    const char *words[2], *format = NULL, *model = NULL;
    CarryOptions carry = {0};
    const Option options[] = {
        {"--format", OPTION_TEXT, &format, 0, 0},
        {"--model", OPTION_TEXT, &model, 0, 0},
        {"--dtype", OPTION_TEXT, &carry.dtype, 0, 0},
        {"--untie", OPTION_FLAG, &carry.untie, 0, 0},
    };
    Use use = {0};
    Text files = {0};
    CarryReport report;
    Status status = options_parse(cli, options, sizeof options / sizeof options[0], argc, argv,
                                  words, 2, 2, error);
    int found = !status && format ? plan_word_find(carry_format_names, format) : -1;
    if (!status && found < 0) {
        status = error_set(error, STATUS_USAGE,
                           "--format%s%s: bytes, merged, peft-lora, peft-tinylora or gguf",
                           format ? " " : " must be given", format ? format : "");
    }
    if (status) {
        return status;
    }
    carry.format = (CarryFormat)found;
    carry.path = words[1];
    bool folder = carry_is_adapter(words[0]);
    UseOptions named = {.model = model,
                        .run = folder ? NULL : words[0],
                        .adapter = folder ? words[0] : NULL,
                        .pinned = true};
    status = use_open_adapter(&use, cli, &named, error);
    status = status ? status : carry_export(&report, &use.session, &use.adapter, &carry, error);
    if (!status) {
        int64_t n_bytes = list_files(&files, carry.path);
        if (use.adapter.run_id[0]) {
            cli_record_of_run(cli, &files, "adapter", use.adapter.run_id);
        }
        warn(cli, &carry, &report);
        status = print_report(cli, &use, &carry, &report, n_bytes, error);
    }
    use_close(&use);
    text_release(&files);
    return status;
}

const Verb verb_adapter_export = {
    .name = "adapter export",
    .summary = "an adapter as bytes, merged into its model, or for PEFT and llama.cpp",
    .usage = "RUN --format bytes|merged|peft-lora|peft-tinylora|gguf PATH",
    .help =
        "RUN is a stored run, or the folder of an adapter (then with --model). PATH appears "
        "whole;\n"
        "it must not exist (an empty folder may). docs/adapters.md says what is exact.\n\n"
        "  bytes           v alone (26 bytes for 13 scalars of bf16), and what it is, with hashes\n"
        "  merged          a whole model directory: W' in the type of W, rounded once\n"
        "  peft-lora       what PEFT loads as LoRA\n"
        "  peft-tinylora   what PEFT 0.20 and later loads as TinyLoRA, P saved\n"
        "  gguf            a LoRA file of llama.cpp\n\n"
        "  --model MODEL   another place of the run's model\n"
        "  --dtype T       bytes: f32, bf16 or f16; else as the model sees v (adapter.dtype)\n"
        "  --untie         peft-tinylora: a v for each module, where PEFT cannot tie as the "
        "plan\n\n"
        "examples:\n"
        "  tinylora adapter export 3f2a --format bytes --dtype bf16 my-adapter\n"
        "  tinylora adapter export 3f2a --format peft-lora my-lora\n",
    .run = run,
};
