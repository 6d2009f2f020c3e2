/* tinylora model info */
#include <stdlib.h>
#include <string.h>

#include "cli/options.h"
#include "cli/sandbox.h"
#include "cli/table.h"
#include "cli/verbs.h"
#include "core/file.h"
#include "core/model_config.h"
#include "core/model_rope.h"
#include "core/safetensors.h"
#include "core/sha256.h"
#include "core/tokenizer_gguf.h"
#include "rl/chat.h"

/* "BF16" or "BF16, F32": the types of the file's tensors. */
static void list_types(const SafeTensors *file, Text *out)
{
    for (size_t i = 0; i < safetensors_count(file); i++) {
        bool first = true;
        for (size_t j = 0; j < i && first; j++) {
            first = strcmp(safetensors_at(file, j)->type_name, safetensors_at(file, i)->type_name);
        }
        if (first) {
            text_printf(out, "%s%s", out->n ? ", " : "", safetensors_at(file, i)->type_name);
        }
    }
}

static size_t count_parameters(const ModelConfig *config)
{
    TensorSpec *tensors;
    size_t sum = 0, n = model_config_tensors(&tensors, config);
    for (size_t i = 0; i < n; i++) {
        size_t product = 1;
        for (int j = 0; j < tensors[i].n_dims; j++) {
            product *= tensors[i].dims[j];
        }
        sum += product;
    }
    free(tensors);
    return sum;
}

static void add_integer(Table *table, const char *key, long value)
{
    table_column(table, key, true);
    table_cell(table, "%ld", value);
}

static void add_string(Table *table, const char *key, const char *value)
{
    table_column(table, key, false);
    table_cell(table, "%s", value);
}

/* One wide row; printed as key and value where people read it. */
static void describe(Table *table, const ModelConfig *config)
{
    add_string(table, "architecture", architecture_row(config->architecture)->class_name);
    add_integer(table, "parameters", (long)count_parameters(config));
    add_integer(table, "layers", config->n_layers);
    add_integer(table, "width", config->width);
    add_integer(table, "heads", config->n_heads);
    add_integer(table, "kv_heads", config->n_kv_heads);
    add_integer(table, "head_dim", config->head_dim);
    add_integer(table, "ff_width", config->ff_width);
    add_integer(table, "vocabulary", config->vocab_size);
    add_integer(table, "context", config->max_positions);
    add_integer(table, "window", config->window);
    add_string(table, "positions", rope_type_name(config->rope_type));
    add_string(table, "head", config->tied_head ? "tied" : "own");
}

static Status read_files(Table *table, const char *directory, Error *error)
{
    char path[FILE_PATH_MAX], sha256[SHA256_HEX_SIZE];
    SafeTensors *file = NULL;
    Tokenizer *tokenizer = NULL;
    Text types = {0};
    Status status = model_weights_open(&file, directory, error);
    if (!status) {
        safetensors_sha256(sha256, file);
        list_types(file, &types);
        add_string(table, "types", text_string(&types));
        add_string(table, "weights_sha256", sha256);
        status = model_file_path(path, directory, "tokenizer.json", error);
    }
    if (!status && file_exists(path)) {
        const Gguf *gguf = safetensors_gguf(file); /* whose one hash is that of its weights */
        status = gguf ? tokenizer_of_gguf(&tokenizer, gguf, path, error)
                      : tokenizer_open(&tokenizer, path, error);
        if (!status) {
            add_integer(table, "tokens", tokenizer_size(tokenizer));
            add_string(table, "tokenizer_sha256", gguf ? sha256 : tokenizer_sha256(tokenizer));
        }
    }
    tokenizer_free(tokenizer);
    safetensors_close(file);
    text_release(&types);
    return status;
}

/* The model's own chat template: its name where it is known. */
static Status read_chat(Table *table, const char *path, Error *error)
{
    ModelChat chat;
    Status status = chat_of_model(&chat, path, error);
    if (!status && chat.sha256[0]) {
        add_string(table, "chat_template", chat.known ? chat.known->name : "not known");
        add_string(table, "chat_template_sha256", chat.sha256);
    }
    return status;
}

static void print_info(const Cli *cli, const Table *wide, Text *out)
{
    if (cli->format == FORMAT_JSON || cli->format == FORMAT_JSONL) {
        table_print(wide, FORMAT_JSONL, out);
        return;
    }
    Table tall = {0};
    table_column(&tall, "key", false);
    table_column(&tall, "value", false);
    for (size_t i = 0; i < wide->n_columns; i++) {
        table_cell(&tall, "%s", wide->columns[i]);
        table_cell(&tall, "%s", wide->cells[i]);
    }
    table_print(&tall, cli->format, out);
    table_release(&tall);
}

static Status run(Cli *cli, int argc, char **argv, Error *error)
{
    const char *name;
    char directory[CONFIG_PATH];
    ModelConfig config;
    Sandbox sandbox;
    Table table = {0};
    Text out = {0};
    Status status = options_parse(cli, NULL, 0, argc, argv, &name, 1, 1, error);
    status = status ? status : cli_model_directory(cli, directory, name, error);
    status = status ? status : sandbox_for_model(&sandbox, directory, error);
    status = status ? status : model_config_read(&config, directory, error);
    if (!status) {
        add_string(&table, "model", directory);
        describe(&table, &config);
        status = read_files(&table, directory, error);
        status = status ? status : read_chat(&table, directory, error);
    }
    if (!status) {
        print_info(cli, &table, &out);
        status = cli_write(text_string(&out), out.n, error);
    }
    text_release(&out);
    table_release(&table);
    return status;
}

const Verb verb_model_info = {
    .name = "model info",
    .summary = "architecture, sizes, types, tokenizer, SHA-256 of a model",
    .usage = "MODEL",
    .help = "examples:\n"
            "  tinylora model info abacus\n"
            "  tinylora model info ../Qwen2.5-0.5B -o json\n",
    .run = run,
};
