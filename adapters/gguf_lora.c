/* Header, metadata, tensor infos, padding to 32 bytes, data; everything little-endian
 * (ggml/docs/gguf.md). */
#include "adapters/gguf_lora.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "adapters/change.h"
#include "core/file.h"
#include "core/gguf_model.h"
#include "core/gguf_write.h"

/* llama.cpp's name of an adapter's matrix; dims as the rest of the code has them. */
static void add_tensor(Text *out, const Module *module, char letter, int rows, int columns,
                       size_t *offset)
{
    char name[GGUF_NAME_MAX];
    snprintf(name, sizeof name, "blk.%d.%s.weight.lora_%c", module->layer,
             gguf_role_name(module->role), letter);
    Tensor tensor = {.name = name,
                     .type = TENSOR_F32,
                     .n_dims = 2,
                     .dims = {(size_t)rows, (size_t)columns},
                     .n_bytes = (size_t)rows * columns * sizeof(float)};
    gguf_add_tensor(out, &tensor, GGUF_ALIGNMENT, offset);
}

static void add_header(Text *out, const AdapterBank *bank, const Module *modules, int n,
                       const char *name)
{
    const ModelConfig *config = &adapter_model(bank)->config;
    int rank = adapter_spec(bank)->plan.rank;
    size_t offset = 0;
    gguf_add_start(out, (size_t)n * 2, 7);
    gguf_add_string(out, "general.architecture", architecture_row(config->architecture)->gguf);
    gguf_add_string(out, "general.type", "adapter");
    gguf_add_string(out, "general.name", name);
    gguf_add_string(out, "adapter.type", "lora");
    gguf_add_f32(out, "adapter.lora.alpha", (float)rank);
    gguf_add_u32(out, "general.file_type", 0); /* all f32 */
    gguf_add_u32(out, "general.quantization_version", 2);
    for (int m = 0; m < n; m++) {
        int n_out, n_in;
        role_shape(config, modules[m].role, &n_out, &n_in);
        add_tensor(out, &modules[m], 'a', rank, n_in, &offset);
        add_tensor(out, &modules[m], 'b', n_out, rank, &offset);
    }
    gguf_add_padding(out, GGUF_ALIGNMENT);
}

static Status put(FileWriter *writer, const float *values, size_t n, Error *error)
{
    static const char zeros[GGUF_ALIGNMENT];
    size_t n_bytes = n * sizeof *values;
    Status status = file_writer_append(writer, values, n_bytes, error);
    size_t padding = gguf_padded(n_bytes, GGUF_ALIGNMENT) - n_bytes;
    return status ? status : file_writer_append(writer, zeros, padding, error);
}

/* The rows of b in the order of llama.cpp. */
static void turn(float *out, const float *b, int n_out, int rank, int turned)
{
    for (int row = 0; row < n_out; row++) {
        size_t from = turned_row_back(turned, (size_t)row);
        memcpy(out + (size_t)row * rank, b + from * rank, (size_t)rank * sizeof *b);
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
        float *a = malloc((n_a + 2 * n_b) * sizeof *a);
        if (!a) {
            return error_set(error, STATUS_FAILED, "no memory for the matrices of a module");
        }
        float *b = a + n_a, *in_order = b + n_b;
        adapter_product(bank, adapter, m, a, b);
        int turned = gguf_turned(config, role);
        if (turned) {
            turn(in_order, b, n_out, rank, turned);
        }
        status = put(writer, a, n_a, error);
        status = status ? status : put(writer, turned ? in_order : b, n_b, error);
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
