/* tinylora score */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/options.h"
#include "cli/texts.h"
#include "cli/use.h"
#include "cli/verbs.h"

typedef struct {
    TokenList ids;
    uint8_t *scored;
    double *logprobs; /* (n); the first one has none */
} Scored;

static Status prepare(Scored *scored, const Model *model, const InputText *text, Error *error)
{
    Status status =
        tokenizer_encode(model->tokenizer, text->bytes, text->n,
                         TOKENIZER_ADD_SPECIAL | TOKENIZER_PARSE_SPECIAL, &scored->ids, error);
    size_t n = scored->ids.n;
    if (!status && n > (size_t)model->config.max_positions) {
        status = error_set(error, STATUS_REFUSED, "%zu tokens, the model's context holds %d", n,
                           model->config.max_positions);
    }
    for (size_t i = 0; i < n && !status; i++) {
        if (scored->ids.ids[i] >= model->config.vocab_size) {
            status = error_set(error, STATUS_REFUSED, "token %d is outside the model's vocabulary",
                               scored->ids.ids[i]);
        }
    }
    scored->scored = malloc(n + 1);
    scored->logprobs = malloc((n + 1) * sizeof *scored->logprobs);
    if (!status && (!scored->scored || !scored->logprobs)) {
        status = error_set(error, STATUS_FAILED, "out of memory");
    }
    if (!status) {
        memset(scored->scored, 1, n + 1);
        scored->scored[0] = 0;
    }
    return status;
}

static void print_scored(const Cli *cli, const Scored *scored, Text *out)
{
    bool json = cli->format == FORMAT_JSON || cli->format == FORMAT_JSONL;
    size_t n = scored->ids.n;
    double sum = 0;
    for (size_t i = 1; i < n; i++) {
        sum += scored->logprobs[i];
    }
    double nll = n > 1 ? -sum / (double)(n - 1) : NAN;
    if (!json) {
        text_printf(out, cli->format == FORMAT_CSV ? "%zu,%.17g," : "%zu  %.6f ", n, nll);
        for (size_t i = 1; i < n; i++) {
            text_printf(out, " %.6f", scored->logprobs[i]);
        }
        text_add(out, "\n");
        return;
    }
    text_printf(out, "{\"n_tokens\": %zu, \"logprobs\": [", n);
    for (size_t i = 1; i < n; i++) {
        text_add(out, i > 1 ? ", " : "");
        text_json_number(out, scored->logprobs[i]);
    }
    text_add(out, "], \"nll\": ");
    text_json_number(out, nll);
    text_add(out, "}\n");
}

static Status evaluate(const Session *session, const Scored *scored, size_t n, Error *error)
{
    Sequence *sequences = calloc(n + 1, sizeof *sequences);
    if (!sequences) {
        return error_set(error, STATUS_FAILED, "out of memory");
    }
    int n_sequences = 0;
    for (size_t i = 0; i < n; i++) {
        if (scored[i].ids.n > 0) {
            sequences[n_sequences++] = (Sequence){.tokens = scored[i].ids.ids,
                                                  .n_tokens = (int)scored[i].ids.n,
                                                  .parent = -1,
                                                  .adapter = session->adapter,
                                                  .scored = scored[i].scored,
                                                  .logprobs = scored[i].logprobs};
        }
    }
    Batch batch = {
        .sequences = sequences, .n_sequences = n_sequences, .hook = session_hook(session)};
    Status status = n_sequences ? engine_evaluate(session->bench.engine, &batch, error) : STATUS_OK;
    free(sequences);
    return status;
}

static Status score(const Cli *cli, const Session *session, const InputText *texts, size_t n,
                    const char *file, Error *error)
{
    Text out = {0};
    Scored *scored = calloc(n + 1, sizeof *scored);
    Status status = scored ? STATUS_OK : error_set(error, STATUS_FAILED, "out of memory");
    for (size_t i = 0; i < n && !status; i++) {
        status = prepare(&scored[i], session->bench.model, &texts[i], error);
        status = status ? error_context(error, status, "\"%s\" line %d", file, texts[i].line)
                        : STATUS_OK;
    }
    status = status ? status : evaluate(session, scored, n, error);
    for (size_t i = 0; i < n && !status; i++) {
        print_scored(cli, &scored[i], &out);
    }
    status = status ? status : cli_write(text_string(&out), out.n, error);
    for (size_t i = 0; scored && i < n; i++) {
        token_list_release(&scored[i].ids);
        free(scored[i].scored);
        free(scored[i].logprobs);
    }
    free(scored);
    text_release(&out);
    return status;
}

static Status run(Cli *cli, int argc, char **argv, Error *error)
{
    UseOptions used = {0};
    const char *file = NULL;
    const Option options[] = {
        USE_OPTIONS(used),
        {"--file", OPTION_TEXT, &file, 0, 0},
    };
    Use use = {0};
    InputText *texts = NULL;
    size_t n = 0;
    Status status = options_parse(cli, options, sizeof options / sizeof options[0], argc, argv,
                                  NULL, 0, 0, error);
    if (!status && !file) {
        status = error_set(error, STATUS_USAGE, "--file: a file of texts is missing");
    }
    status = status ? status : texts_read(&texts, &n, file, error);
    status = status ? status : use_open(&use, cli, &used, error);
    status = status ? status : score(cli, &use.session, texts, n, file, error);
    use_close(&use);
    texts_free(texts, n);
    return status;
}

const Verb verb_score = {
    .name = "score",
    .summary = "log-probability of every token of texts",
    .usage = "--model MODEL [--run RUN | --surface S --at P | --adapter DIR] --file TEXTS",
    .help = "One line a text: number of tokens, mean negative log-likelihood of the next token,\n"
            "log-probability of each next token.\n\n" USE_HELP
            "  --file TEXTS      one text a line, or a JSON string or {\"text\": ...} a line; -: "
            "stdin\n\n"
            "examples:\n"
            "  tinylora score --model abacus --file texts.txt\n"
            "  tinylora score --run 3f2a --file texts.jsonl -o json\n"
            "  tinylora score --surface abacus-surface --at minimum --file texts.txt\n",
    .run = run,
};
