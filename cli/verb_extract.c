/* tinylora extract */
#include <math.h>
#include <string.h>

#include "analysis/statistics.h"
#include "cli/options.h"
#include "cli/table.h"
#include "cli/verbs.h"
#include "rl/dataset.h"
#include "rl/extract.h"

/* A row of the file under an extractor: named as in the view eval_sample. */
static void list_rows(Table *table, const Dataset *dataset)
{
    table_column(table, "line", true);
    table_column(table, "extractor", false);
    table_column(table, "extracted", false);
    table_column(table, "correct", true);
    table_column(table, "answer", false);
    for (int i = 0; i < dataset->n_rows; i++) {
        const DataRow *row = &dataset->rows[i];
        for (int k = 0; k < n_extractors; k++) {
            Text read = {0};
            bool found = extractors[k]->read(&read, row->question, row->n_question);
            bool correct =
                extractors[k]->correct(row->question, row->n_question, row->answer, row->n_answer);
            table_cell(table, "%d", row->line);
            table_cell(table, "%s", extractors[k]->name);
            if (found) {
                table_cell(table, "%s", text_string(&read));
            } else {
                table_null(table);
            }
            table_cell(table, "%d", correct);
            table_cell(table, "%s", row->answer);
            text_release(&read);
        }
    }
}

/* How many rows each extractor reads and calls right. */
static void sum_up(Table *table, const Dataset *dataset)
{
    static const char *const columns[] = {"extractor", "n",  "found",      "correct",
                                          "value",     "se", "wilson_low", "wilson_high"};
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) {
        table_column(table, columns[i], i > 0);
    }
    for (int k = 0; k < n_extractors; k++) {
        size_t found = 0, correct = 0, n = (size_t)dataset->n_rows;
        double low, high;
        for (size_t i = 0; i < n; i++) {
            const DataRow *row = &dataset->rows[i];
            Text read = {0};
            found += extractors[k]->read(&read, row->question, row->n_question);
            correct +=
                extractors[k]->correct(row->question, row->n_question, row->answer, row->n_answer);
            text_release(&read);
        }
        double share = (double)correct / (double)n;
        statistics_wilson(&low, &high, correct, n, 0.95);
        table_cell(table, "%s", extractors[k]->name);
        table_cell(table, "%zu", n);
        table_cell(table, "%zu", found);
        table_cell(table, "%zu", correct);
        table_cell(table, "%.6g", share);
        table_cell(table, n > 1 ? "%.6g" : "", sqrt(share * (1 - share) / (double)(n - 1)));
        table_cell(table, "%.6g", low);
        table_cell(table, "%.6g", high);
    }
}

static Status run(Cli *cli, int argc, char **argv, Error *error)
{
    const char *file = NULL;
    bool summary = false;
    const Option options[] = {{"--file", OPTION_TEXT, &file, 0, 0},
                              {"--summary", OPTION_FLAG, &summary, 0, 0}};
    Dataset dataset = {0};
    Table table = {0};
    Text out = {0};
    Status status = options_parse(cli, options, 2, argc, argv, NULL, 0, 0, error);
    if (!status && !file) {
        status = error_set(error, STATUS_USAGE, "--file: a file of completions is missing");
    }
    status = status ? status : dataset_open(&dataset, file, "completion", "answer", error);
    if (!status) {
        (summary ? sum_up : list_rows)(&table, &dataset);
        table_print(&table, cli->format, &out);
        status = cli_write(text_string(&out), out.n, error);
    }
    table_release(&table);
    text_release(&out);
    dataset_close(&dataset);
    return status;
}

const Verb verb_extract = {
    .name = "extract",
    .summary = "what each extractor reads in given completions, and its verdict",
    .usage = "--file JSONL [--summary]",
    .help =
        "Rows of the file are objects with a `completion` and its reference `answer`. Printed "
        "is a line\n"
        "for each row and extractor: what was read (nothing: null) and whether that is right.\n\n"
        "  --summary   instead, how many rows each extractor reads and calls right\n\n"
        "extractors: strict and flexible of lm-evaluation-harness, verl_strict (verl) and\n"
        "verl_flexible of verl, openai of grade-school-math, boxed of MATH. They differ; see\n"
        "docs/evaluation.md.\n\n"
        "examples:\n"
        "  tinylora extract --file outputs.jsonl --summary -o md\n"
        "  tinylora extract --file outputs.jsonl -o jsonl\n",
    .run = run,
};
