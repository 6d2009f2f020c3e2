/* tinylora completions RUN */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cli/options.h"
#include "cli/verbs.h"
#include "results/frame.h"

#define ROWS                                                                                       \
    " FROM completion WHERE run_id = ?1 AND step = coalesce(CAST(?2 AS INTEGER), (SELECT "         \
    "max(step) FROM completion WHERE run_id = ?1)) ORDER BY prompt, sample LIMIT CAST(?3 AS "      \
    "INTEGER)"
static const char readable[] =
    "SELECT step, prompt, sample, prompt_row AS row, reward, round(advantage, 4) AS advantage, "
    "n_tokens AS tokens, finish, prompt_text, text" ROWS;
static const char whole[] = "SELECT step, prompt, sample, prompt_row, reward, advantage, n_tokens, "
                            "finish, prompt_text, text, extracted, ids, logprobs" ROWS;

/* "0a0b.." as the array of little-endian numbers that it is. */
static void add_numbers(Text *out, const char *hex, bool doubles)
{
    size_t size = doubles ? sizeof(double) : sizeof(int32_t);
    size_t n = hex ? strlen(hex) / 2 / size : 0;
    text_add(out, "[");
    for (size_t i = 0; i < n; i++) {
        unsigned char bytes[sizeof(double)];
        for (size_t k = 0; k < size; k++) {
            char pair[3] = {hex[2 * (i * size + k)], hex[2 * (i * size + k) + 1], 0};
            bytes[k] = (unsigned char)strtoul(pair, NULL, 16);
        }
        text_add(out, i ? "," : "");
        if (doubles) {
            double number;
            memcpy(&number, bytes, sizeof number);
            text_json_number(out, number);
        } else {
            int32_t number;
            memcpy(&number, bytes, sizeof number);
            text_printf(out, "%d", number);
        }
    }
    text_add(out, "]");
}

static void add_object(Text *out, const Frame *frame, size_t row)
{
    for (size_t i = 0; i < frame->n_columns; i++) {
        const FrameColumn *column = &frame->columns[i];
        text_printf(out, "%s\"%s\": ", i ? ", " : "{", column->name);
        if (strcmp(column->name, "ids") == 0 || strcmp(column->name, "logprobs") == 0) {
            add_numbers(out, column->numeric ? NULL : column->texts[row],
                        strcmp(column->name, "logprobs") == 0);
        } else if (column->numeric) {
            text_json_number(out, column->numbers[row]);
        } else if (!column->texts[row]) {
            text_add(out, "null");
        } else if (strcmp(column->name, "extracted") == 0) { /* JSON already */
            text_add(out, column->texts[row]);
        } else {
            text_json_string(out, column->texts[row], strlen(column->texts[row]));
        }
    }
    text_add(out, "}");
}

static Status answer_json(Text *out, Store *store, const char *const *binds, bool lines,
                          Error *error)
{
    Frame frame = {0};
    Status status = frame_read(&frame, store, whole, binds, 3, error);
    text_add(out, lines ? "" : "[");
    for (size_t row = 0; row < frame.n_rows && !status; row++) {
        text_add(out, lines ? "" : row ? ",\n " : "");
        add_object(out, &frame, row);
        text_add(out, lines ? "\n" : "");
    }
    text_add(out, lines ? "" : "]\n");
    frame_release(&frame);
    return status;
}

static Status run(Cli *cli, int argc, char **argv, Error *error)
{
    const char *id;
    int step = -1, limit = 0;
    const Option options[] = {
        {"--step", OPTION_INT, &step, 0, 1e9},
        {"--limit", OPTION_INT, &limit, 0, 1e9},
    };
    Store *store = NULL;
    StoredRun stored = {0};
    Text out = {0}, step_text = {0}, limit_text = {0};
    Status status = options_parse(cli, options, 2, argc, argv, &id, 1, 1, error);
    status = status ? status : cli_open_store(cli, &store, error);
    status = status ? status : store_find_run(store, id, &stored, error);
    text_printf(&step_text, "%d", step);
    text_printf(&limit_text, "%d", limit ? limit : -1);
    if (!status) {
        const char *binds[] = {stored.run_id, step < 0 ? NULL : text_string(&step_text),
                               text_string(&limit_text)};
        bool json = cli->format == FORMAT_JSON || cli->format == FORMAT_JSONL;
        status = json ? answer_json(&out, store, binds, cli->format == FORMAT_JSONL, error)
                      : query_run(store, readable, binds, 3, cli->format, &out, error);
    }
    status = status ? status : cli_write(text_string(&out), out.n, error);
    text_release(&out);
    text_release(&step_text);
    text_release(&limit_text);
    free(stored.block);
    store_close(store);
    return status;
}

const Verb verb_completions = {
    .name = "completions",
    .summary = "what a run sampled at a step, with rewards and advantages",
    .usage = "RUN [--step K] [--limit N]",
    .help = "In JSON with what each extractor read, token ids and log-probabilities; a table cuts "
            "long texts,\n"
            "-o md does not.\n\n"
            "  --step K    of step K; else of the last one\n"
            "  --limit N   the first N; else all\n\n"
            "examples:\n"
            "  tinylora completions 3f2a\n"
            "  tinylora completions 3f2a --step 1 --limit 8 -o jsonl\n",
    .run = run,
};
