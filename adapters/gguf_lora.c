/* Header, metadata, tensor infos, padding to 32 bytes, data; everything little-endian
 * (ggml/docs/gguf.md). */
#include "adapters/gguf_lora.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "adapters/change.h"
#include "core/file.h"
#include "core/text.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "GGUF is little-endian");

enum { GGUF_VERSION = 3, TYPE_UINT32 = 4, TYPE_FLOAT32 = 6, TYPE_STRING = 8, TENSOR_TYPE_F32 = 0 };
enum { ALIGNMENT = 32 };

static const char *const tensor_names[N_ROLES] = {"attn_q",   "attn_k", "attn_v",  "attn_output",
                                                  "ffn_gate", "ffn_up", "ffn_down"};

static void add_u32(Text *out, uint32_t value)
{
    text_append(out, (const char *)&value, sizeof value);
}

static void add_u64(Text *out, uint64_t value)
{
    text_append(out, (const char *)&value, sizeof value);
}

static void add_string(Text *out, const char *string)
{
    add_u64(out, strlen(string));
    text_append(out, string, strlen(string));
}

static void add_string_entry(Text *out, const char *key, const char *value)
{
    add_string(out, key);
    add_u32(out, TYPE_STRING);
    add_string(out, value);
}

static size_t padded(size_t n)
{
    return (n + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* ggml counts dimensions from the fastest: (columns, rows). */
static void add_tensor(Text *out, const Module *module, char letter, int rows, int columns,
                       size_t *offset)
{
    char name[64];
    snprintf(name, sizeof name, "blk.%d.%s.weight.lora_%c", module->layer,
             tensor_names[module->role], letter);
    add_string(out, name);
    add_u32(out, 2);
    add_u64(out, (uint64_t)columns);
    add_u64(out, (uint64_t)rows);
    add_u32(out, TENSOR_TYPE_F32);
    add_u64(out, *offset);
    *offset += padded((size_t)rows * columns * sizeof(float));
}

static void add_header(Text *out, const AdapterBank *bank, const Module *modules, int n,
                       const char *name)
{
    const ModelConfig *config = &adapter_model(bank)->config;
    int rank = adapter_spec(bank)->plan.rank;
    float alpha = (float)rank;
    size_t offset = 0;
    text_append(out, "GGUF", 4);
    add_u32(out, GGUF_VERSION);
    add_u64(out, (uint64_t)n * 2);
    add_u64(out, 7);
    add_string_entry(out, "general.architecture", architecture_row(config->architecture)->gguf);
    add_string_entry(out, "general.type", "adapter");
    add_string_entry(out, "general.name", name);
    add_string_entry(out, "adapter.type", "lora");
    add_string(out, "adapter.lora.alpha");
    add_u32(out, TYPE_FLOAT32);
    text_append(out, (const char *)&alpha, sizeof alpha);
    add_string(out, "general.file_type");
    add_u32(out, TYPE_UINT32);
    add_u32(out, 0); /* all f32 */
    add_string(out, "general.quantization_version");
    add_u32(out, TYPE_UINT32);
    add_u32(out, 2);
    for (int m = 0; m < n; m++) {
        int n_out, n_in;
        role_shape(config, modules[m].role, &n_out, &n_in);
        add_tensor(out, &modules[m], 'a', rank, n_in, &offset);
        add_tensor(out, &modules[m], 'b', n_out, rank, &offset);
    }
    while (out->n % ALIGNMENT) {
        text_append(out, "", 1);
    }
}

static Status put(FileWriter *writer, const float *values, size_t n, Error *error)
{
    static const char zeros[ALIGNMENT];
    size_t n_bytes = n * sizeof *values;
    Status status = file_writer_append(writer, values, n_bytes, error);
    return status ? status : file_writer_append(writer, zeros, padded(n_bytes) - n_bytes, error);
}

/* transformers turns the halves of a head, llama.cpp's llama neighbours: row 2 i + half of a head
 * is its row half * head_dim / 2 + i. */
static void permute(float *out, const float *b, int n_out, int rank, int head_dim)
{
    for (int row = 0; row < n_out; row++) {
        int head = row / head_dim, place = row % head_dim;
        int from = head * head_dim + place % 2 * (head_dim / 2) + place / 2;
        memcpy(out + (size_t)row * rank, b + (size_t)from * rank, (size_t)rank * sizeof *b);
    }
}

static Status put_modules(FileWriter *writer, const AdapterBank *bank, int adapter,
                          const Module *modules, int n, Error *error)
{
    const ModelConfig *config = &adapter_model(bank)->config;
    int rank = adapter_spec(bank)->plan.rank;
    Status status = STATUS_OK;
    for (int m = 0; m < n && !status; m++) {
        int n_out, n_in;
        Role role = modules[m].role;
        role_shape(config, role, &n_out, &n_in);
        size_t n_a = (size_t)rank * n_in, n_b = (size_t)rank * n_out;
        float *a = malloc((n_a + 2 * n_b) * sizeof *a), *b = a + n_a, *turned = b + n_b;
        if (!a) {
            return error_set(error, STATUS_FAILED, "no memory for the matrices of a module");
        }
        adapter_product(bank, adapter, m, a, b);
        bool turn = architecture_row(config->architecture)->gguf_pairs &&
                    (role == ROLE_Q || role == ROLE_K);
        if (turn) {
            permute(turned, b, n_out, rank, config->head_dim);
        }
        status = put(writer, a, n_a, error);
        status = status ? status : put(writer, turn ? turned : b, n_b, error);
        free(a);
    }
    return status;
}

Status gguf_lora_write(const char *path, const AdapterBank *bank, int adapter, const char *name,
                       Error *error)
{
    int n;
    const Module *modules = adapter_modules(bank, &n);
    FileWriter writer;
    if (!modules) {
        return error_set(
            error, STATUS_USAGE,
            "adapter.method \"%s\" is no product of thin matrices; export it as merged",
            adapter_spec(bank)->method);
    }
    if (file_exists(path)) {
        return error_set(error, STATUS_USAGE, "%s: exists already", path);
    }
    Text header = {0};
    add_header(&header, bank, modules, n, name);
    Status status = file_writer_open(&writer, path, error);
    if (!status) {
        status = file_writer_append(&writer, header.bytes, header.n, error);
        status = status ? status : put_modules(&writer, bank, adapter, modules, n, error);
        status = status ? status : file_writer_commit(&writer, error);
        if (status) {
            file_writer_cancel(&writer);
        }
    }
    text_release(&header);
    return status;
}
