/* tinylora tokenize */
#include <stdlib.h>
#include <string.h>

#include "cli/options.h"
#include "cli/texts.h"
#include "cli/verbs.h"
#include "core/file.h"
#include "core/model_config.h"
#include "core/tokenizer.h"
#include "experiments/config.h"

static void print_ids(const Cli *cli, const TokenList *ids, Text *out)
{
    bool object = cli->format == FORMAT_JSON || cli->format == FORMAT_JSONL;
    text_add(out, object ? "{\"ids\": [" : "[");
    for (size_t i = 0; i < ids->n; i++) {
        text_printf(out, "%s%d", i ? ", " : "", ids->ids[i]);
    }
    text_add(out, object ? "]}\n" : "]\n");
}

static Status encode(const Cli *cli, const Tokenizer *tokenizer, const InputText *text,
                     unsigned flags, Text *out, Error *error)
{
    TokenList ids = {0};
    Status status = tokenizer_encode(tokenizer, text->bytes, text->n, flags, &ids, error);
    if (!status) {
        print_ids(cli, &ids, out);
    }
    token_list_release(&ids);
    return status;
}

/* Numbers divided by anything that is not a digit: "1 2 3", "[1, 2, 3]", {"ids": [1, 2, 3]}. */
static Status decode(const Cli *cli, const Tokenizer *tokenizer, const InputText *text,
                     bool skip_special, Text *out, Error *error)
{
    TokenList ids = {0};
    Text decoded = {0};
    for (const char *c = text->bytes; *c;) {
        if (*c < '0' || *c > '9') {
            c++;
            continue;
        }
        char *end;
        long id = strtol(c, &end, 10);
        if (id >= tokenizer_size(tokenizer)) {
            token_list_release(&ids);
            return error_set(error, STATUS_USAGE, "id %.20s: ids end at %d", c,
                             tokenizer_size(tokenizer) - 1);
        }
        token_list_add(&ids, (int32_t)id);
        c = end;
    }
    tokenizer_decode(tokenizer, ids.ids, ids.n, skip_special, &decoded);
    if (cli->format == FORMAT_JSON || cli->format == FORMAT_JSONL) {
        text_add(out, "{\"text\": ");
        text_json_string(out, text_string(&decoded), decoded.n);
        text_add(out, "}\n");
    } else {
        text_append(out, text_string(&decoded), decoded.n);
        text_add(out, "\n");
    }
    token_list_release(&ids);
    text_release(&decoded);
    return STATUS_OK;
}

static Status open_tokenizer(const Cli *cli, Tokenizer **tokenizer, const char *model, Error *error)
{
    char directory[CONFIG_PATH], path[FILE_PATH_MAX];
    Status status = cli_model_directory(cli, directory, model, error);
    status = status ? status : model_file_path(path, directory, "tokenizer.json", error);
    if (!status && !file_exists(path)) {
        status = error_set(error, STATUS_REFUSED, "model \"%s\": it has no tokenizer", model);
    }
    return status ? status : tokenizer_open(tokenizer, path, error);
}

static Status run(Cli *cli, int argc, char **argv, Error *error)
{
    const char *model = NULL, *text = NULL, *file = NULL;
    bool decoding = false, no_special = false;
    const Option options[] = {
        {"--model", OPTION_TEXT, &model, 0, 0},
        {"--text", OPTION_TEXT, &text, 0, 0},
        {"--file", OPTION_TEXT, &file, 0, 0},
        {"--decode", OPTION_FLAG, &decoding, 0, 0},
        {"--no-special", OPTION_FLAG, &no_special, 0, 0},
    };
    Tokenizer *tokenizer = NULL;
    InputText *texts = NULL;
    size_t n = 0;
    Text out = {0};
    Status status = options_parse(cli, options, 5, argc, argv, NULL, 0, 0, error);
    if (!status && !text == !file) {
        status = error_set(error, STATUS_USAGE, "one of --text and --file is expected");
    }
    status = status ? status : open_tokenizer(cli, &tokenizer, model, error);
    status = !status && file ? texts_read(&texts, &n, file, error) : status;
    InputText one = {(char *)(uintptr_t)text, text ? strlen(text) : 0, 1};
    unsigned flags = no_special ? 0 : TOKENIZER_PARSE_SPECIAL | TOKENIZER_ADD_SPECIAL;
    for (size_t i = 0; i < (file ? n : 1) && !status; i++) {
        const InputText *input = file ? &texts[i] : &one;
        status = decoding ? decode(cli, tokenizer, input, no_special, &out, error)
                          : encode(cli, tokenizer, input, flags, &out, error);
        if (status && file) {
            error_context(error, status, "\"%s\" line %d", file, input->line);
        }
    }
    status = status ? status : cli_write(text_string(&out), out.n, error);
    text_release(&out);
    texts_free(texts, n);
    tokenizer_free(tokenizer);
    return status;
}

const Verb verb_tokenize = {
    .name = "tokenize",
    .summary = "text to token ids and back",
    .usage = "--model MODEL (--text S | --file F) [--decode] [--no-special]",
    .help =
        "  --text S       one text\n"
        "  --file F       one text a line, or a JSON string or {\"text\": ...} a line; -: stdin\n"
        "  --decode       the texts are ids; print what they say\n"
        "  --no-special   add no BOS and read special tokens in the text as text;\n"
        "                 with --decode: leave special tokens out\n\n"
        "examples:\n"
        "  tinylora tokenize --model abacus --text \"Tom has 3 apples.\"\n"
        "  tinylora tokenize --model abacus --text \"[12, 7, 30]\" --decode\n",
    .run = run,
};
