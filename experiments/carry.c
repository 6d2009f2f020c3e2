/* Every format is one function of adapters/ or the descriptor; here it is chosen. */
#include "experiments/carry.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "adapters/gguf_lora.h"
#include "adapters/peft.h"
#include "core/file.h"
#include "experiments/descriptor.h"

const char *const carry_format_names[] = {"bytes",         "merged", "peft-lora",
                                          "peft-tinylora", "gguf",   NULL};

static Status export_bytes(CarryReport *report, const Session *session, const RunAdapter *adapter,
                           const CarryOptions *options, Error *error)
{
    static const char *const words[] = {"f32", "f16", "bf16", NULL}; /* in TensorType's order */
    const char *dtype = options->dtype ? options->dtype : adapter->spec.adapter.dtype;
    bool rounds = strcmp(adapter->spec.adapter.method, "tinylora") == 0 || options->dtype;
    int type = rounds ? plan_word_find(words, dtype) : TENSOR_F32;
    if (type < 0) {
        return error_set(error, STATUS_USAGE, "--dtype \"%.32s\": f32, bf16 or f16", dtype);
    }
    return descriptor_write(&report->rounding, options->path, adapter, session->bank,
                            (TensorType)type, error);
}

Status carry_export(CarryReport *report, const Session *session, const RunAdapter *adapter,
                    const CarryOptions *options, Error *error)
{
    *report = (CarryReport){0};
    const char *base = session->bench.directory;
    if (options->dtype && options->format != CARRY_BYTES) {
        return error_set(error, STATUS_USAGE, "--dtype is of the format bytes alone");
    }
    if (options->untie && options->format != CARRY_PEFT_TINYLORA) {
        return error_set(error, STATUS_USAGE, "--untie is of the format peft-tinylora alone");
    }
    switch (options->format) {
    case CARRY_BYTES:
        return export_bytes(report, session, adapter, options, error);
    case CARRY_MERGED:
        return adapter_merge(&report->merge, session->bank, adapter->v, options->path, error);
    case CARRY_PEFT_LORA:
        return peft_lora_write(options->path, session->bank, 1, base, error);
    case CARRY_PEFT_TINYLORA:
        return peft_tinylora_write(options->path, session->bank, adapter->v, options->untie, base,
                                   error);
    case CARRY_GGUF:
        return gguf_lora_write(options->path, session->bank, 1, adapter->name, error);
    }
    return STATUS_OK;
}

static bool has(const char *directory, const char *name)
{
    char path[FILE_PATH_MAX];
    return path_join(path, directory, name, NULL) == STATUS_OK && file_exists(path);
}

bool carry_is_adapter(const char *directory)
{
    return has(directory, DESCRIPTOR_FILE) || has(directory, PEFT_CONFIG_FILE) ||
           has(directory, "config.json") || has(directory, MODEL_GGUF_FILE);
}

/* What an adapter's folder lacks is a fault of the folder. */
static Status check_readable(const char *directory, const char *name, Error *error)
{
    char path[FILE_PATH_MAX];
    Status status = path_join(path, directory, name, error);
    if (!status && access(path, R_OK) != 0) {
        status =
            error_set(error, STATUS_REFUSED, "%s: cannot be opened: %s", path, strerror(errno));
    }
    return status;
}

/* A merged model is its base, trained in full. */
static Status open_merged(RunAdapter *adapter, const char *directory, const char *model_directory,
                          Error *error)
{
    ModelConfig config;
    char merged[FILE_PATH_MAX];
    settings_default(&adapter->spec);
    strcpy(adapter->spec.adapter.method, "full");
    Status status = model_config_read(&config, model_directory, error);
    status = status ? status : path_join(merged, directory, MODEL_GGUF_FILE, error);
    return status ? status
                  : merged_read(&adapter->v, &adapter->n,
                                has(directory, "config.json") ? directory : merged, &config, error);
}

static Status open_peft(RunAdapter *adapter, const char *directory, const char *model_directory,
                        Error *error)
{
    PeftAdapter peft = {0};
    ModelConfig config;
    memset(adapter, 0, sizeof *adapter);
    Status status = model_config_read(&config, model_directory, error);
    status = status ? status : peft_read(&peft, directory, &config, error);
    if (status) {
        return status;
    }
    settings_default(&adapter->spec);
    strcpy(adapter->spec.adapter.method, "lora");
    adapter->spec.adapter.rank = peft.rank;
    adapter->spec.adapter.alpha = peft.alpha;
    adapter->spec.adapter.rslora = peft.rslora;
    adapter->spec.adapter.dropout = peft.dropout;
    adapter->spec.adapter.targets = peft.targets;
    snprintf(adapter->weights_sha256, sizeof adapter->weights_sha256, "%s", peft.weights_sha256);
    adapter->v = peft.v;
    adapter->n = peft.n;
    return STATUS_OK;
}

Status carry_open(RunAdapter *adapter, const char *directory, const char *model,
                  const char *model_directory, Error *error)
{
    memset(adapter, 0, sizeof *adapter);
    if (!directory_exists(directory)) {
        return error_set(error, STATUS_REFUSED, "adapter \"%s\": no such directory", directory);
    }
    if (!carry_is_adapter(directory)) {
        return error_set(error, STATUS_REFUSED,
                         "adapter \"%s\": it has neither " DESCRIPTOR_FILE " nor " PEFT_CONFIG_FILE
                         " nor a merged model's config.json or " MODEL_GGUF_FILE,
                         directory);
    }
    bool bytes = has(directory, DESCRIPTOR_FILE), peft = !bytes && has(directory, PEFT_CONFIG_FILE);
    const char *merged = has(directory, "config.json") ? "config.json" : MODEL_GGUF_FILE;
    const char *first = bytes ? DESCRIPTOR_FILE : peft ? PEFT_CONFIG_FILE : merged;
    Status status = check_readable(directory, first, error);
    const char *second = bytes ? VALUES_FILE : peft ? PEFT_WEIGHTS_FILE : "model.safetensors";
    if (!status && (bytes || peft || has(directory, second))) { /* a model may be in shards */
        status = check_readable(directory, second, error);
    }
    status = status  ? status
             : bytes ? descriptor_read(adapter, directory, error)
             : peft  ? open_peft(adapter, directory, model_directory, error)
                     : open_merged(adapter, directory, model_directory, error);
    if (status) {
        return status;
    }
    adapter->of_file = true;
    snprintf(adapter->name, sizeof adapter->name, "adapter \"%.50s\"", directory);
    snprintf(adapter->spec.model, sizeof adapter->spec.model, "%s", model);
    return STATUS_OK;
}
