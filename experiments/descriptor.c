/* Hashes are of bytes as they lie in the files; numbers of the fingerprint are derived again. */
#include "experiments/descriptor.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "adapters/change.h"
#include "adapters/fingerprint.h"
#include "core/file.h"
#include "core/json.h"

#define FORMAT "tinylora-adapter"
#define MAP_FILE "tie_map.json"
enum { VERSION = 1, MAX_DESCRIPTOR = 1 << 26, MAX_MAP = 1 << 24 };

static const char *const type_names[] = {"f32", "f16", "bf16", NULL}; /* in TensorType's order */

/* ---- writing ---- */

static void add_string(Text *out, const char *key, const char *value)
{
    text_printf(out, "\"%s\": ", key);
    text_json_string(out, value, strlen(value));
}

/* The settings that make the adapter, its plan resolved: presets and paths are left out. */
static void add_settings(Text *out, const RunSpec *spec)
{
    const char *separator = "{";
    for (size_t i = 0; i < settings_count(); i++) {
        const Setting *setting = setting_at(i);
        if (strncmp(setting->path, "adapter.", 8) == 0 && setting_applies(spec, setting) &&
            !(setting->flags & SETTING_NO_NUMBERS)) {
            text_printf(out, "%s\"%s\": ", separator, setting->path + 8);
            setting_value_json(spec, setting, 0, out);
            separator = ", ";
        }
    }
    text_add(out, "}");
}

static void add_check(Text *out, const Fingerprint *f, const Module *modules)
{
    text_add(out, "{");
    add_string(out, "factors_sha256", f->factors);
    text_add(out, ", ");
    add_string(out, "projection_sha256", f->projection);
    text_add(out, ",\n    \"modules\": [");
    for (int m = 0; m < f->n; m++) {
        char name[96];
        module_name(name, modules[m].layer, modules[m].role);
        text_printf(out, "%s\n      {\"name\": \"%s\", ", m ? "," : "", name);
        if (f->group[m] >= 0) {
            text_printf(out, "\"group\": %d, ", f->group[m]);
        }
        text_add(out, "\"probe\": ");
        text_json_number(out, f->probe[m]);
        text_add(out, "}");
    }
    text_add(out, "\n    ]}");
}

static void add_descriptor(Text *out, const RunAdapter *adapter, const Model *model,
                           const Fingerprint *f, const Module *modules, TensorType type,
                           const char *sha256)
{
    text_add(out, "{\n  ");
    add_string(out, "format", FORMAT);
    text_printf(out, ",\n  \"version\": %d,\n  ", VERSION);
    add_string(out, "run", adapter->run_id);
    text_printf(out, ",\n  \"step\": %lld,\n  \"model\": {", (long long)adapter->step);
    add_string(out, "name", adapter->spec.model);
    text_add(out, ", ");
    add_string(out, "weights_sha256", model_weights_sha256(model));
    text_add(out, ", ");
    add_string(out, "tokenizer_sha256", model_tokenizer_sha256(model));
    text_add(out, "},\n  \"adapter\": ");
    add_settings(out, &adapter->spec);
    text_add(out, ",\n  \"values\": {");
    add_string(out, "file", VALUES_FILE);
    text_add(out, ", ");
    add_string(out, "dtype", type_names[type]);
    text_printf(out, ", \"n\": %zu, \"n_bytes\": %zu, ", adapter->n,
                adapter->n * tensor_type_size(type));
    add_string(out, "sha256", sha256);
    text_add(out, "},\n  \"check\": ");
    add_check(out, f, modules);
    text_add(out, "\n}\n");
}

/* bytes: (n) of the type, malloc'ed. back: (n) what they read as, malloc'ed. */
static Status pack_values(void **bytes, float **back, double *rounding, const float *v, size_t n,
                          TensorType type, Error *error)
{
    *back = malloc(n * sizeof **back + 1);
    *bytes = malloc(n * tensor_type_size(type) + 1);
    *rounding = 0;
    if (!*back || !*bytes) {
        return error_set(error, STATUS_FAILED, "no memory for %zu scalars", n);
    }
    tensor_from_f32(*bytes, v, type, n);
    tensor_to_f32(*back, *bytes, type, n);
    for (size_t i = 0; i < n; i++) {
        *rounding = fmax(*rounding, fabs((double)(*back)[i] - (double)v[i]));
    }
    size_t bad = tensor_find_nonfinite(*bytes, type, n);
    return bad == n ? STATUS_OK
                    : error_set(error, STATUS_USAGE, "v[%zu] = %g cannot be stored as %s", bad,
                                (double)v[bad], type_names[type]);
}

static Status copy_map(const char *folder, const char *map, Error *error)
{
    char path[FILE_PATH_MAX], *bytes = NULL;
    size_t n = 0;
    Status status = path_join(path, folder, MAP_FILE, error);
    status = status ? status : file_read(&bytes, &n, map, MAX_MAP, error);
    status = status ? status : file_write(path, bytes, n, error);
    free(bytes);
    return status;
}

static Status write_folder(const char *directory, const RunAdapter *adapter, const void *bytes,
                           size_t n_bytes, const Text *descriptor, Error *error)
{
    FileWriter folder;
    char path[FILE_PATH_MAX];
    Status status = directory_writer_open(&folder, directory, error);
    if (status) {
        return status;
    }
    status = path_join(path, folder.temporary, VALUES_FILE, error);
    status = status ? status : file_write(path, bytes, n_bytes, error);
    if (!status && adapter->spec.adapter.map[0]) {
        status = copy_map(folder.temporary, adapter->spec.adapter.map, error);
    }
    status = status ? status : path_join(path, folder.temporary, DESCRIPTOR_FILE, error);
    status = status ? status : file_write(path, descriptor->bytes, descriptor->n, error);
    status = status ? status : directory_writer_commit(&folder, error);
    if (status) {
        directory_writer_cancel(&folder);
    }
    return status;
}

Status descriptor_write(double *rounding, const char *directory, const RunAdapter *adapter,
                        AdapterBank *bank, TensorType type, Error *error)
{
    int n_modules;
    const Module *modules = adapter_modules(bank, &n_modules);
    Fingerprint fingerprint = {0};
    Text text = {0};
    void *bytes = NULL;
    float *back = NULL;
    char sha256[SHA256_HEX_SIZE];
    if (!modules) {
        return error_set(error, STATUS_USAGE,
                         "adapter.method \"%s\" has no scalars beside a model; export it as merged",
                         adapter->spec.adapter.method);
    }
    if (directory_occupied(directory)) {
        return error_set(error, STATUS_USAGE, "%s: exists already and is not empty", directory);
    }
    Status status = pack_values(&bytes, &back, rounding, adapter->v, adapter->n, type, error);
    if (!status) { /* described is what is stored */
        adapter_set(bank, 1, back, 1);
        status = fingerprint_take(&fingerprint, bank, 1, error);
        adapter_set(bank, 1, adapter->v, 1);
    }
    if (!status) {
        size_t n_bytes = adapter->n * tensor_type_size(type);
        sha256_bytes(sha256, bytes, n_bytes);
        add_descriptor(&text, adapter, adapter_model(bank), &fingerprint, modules, type, sha256);
        status = write_folder(directory, adapter, bytes, n_bytes, &text, error);
    }
    fingerprint_release(&fingerprint);
    text_release(&text);
    free(bytes);
    free(back);
    return status;
}

/* ---- reading ---- */

static Status read_format(const Json *root, Error *error)
{
    const char *format = json_string(json_get(root, "format"), NULL);
    int64_t version;
    if (!format || strcmp(format, FORMAT) != 0) {
        return error_set(error, STATUS_REFUSED, "\"format\" is not \"%s\"", FORMAT);
    }
    if (!json_int64(json_get(root, "version"), &version) || version < 1) {
        return error_set(error, STATUS_REFUSED, "\"version\" is not a number from 1");
    }
    if (version > VERSION) {
        return error_set(error, STATUS_REFUSED,
                         "version %lld is newer than the %d that this program reads",
                         (long long)version, VERSION);
    }
    return STATUS_OK;
}

static Status read_settings(RunSpec *spec, const Json *settings, Error *error)
{
    if (json_kind(settings) != JSON_OBJECT) {
        return error_set(error, STATUS_REFUSED, "\"adapter\" is %s, not an object",
                         json_kind_name(json_kind(settings)));
    }
    for (size_t i = 0; i < json_size(settings); i++) {
        char path[128];
        int reward;
        snprintf(path, sizeof path, "adapter.%.100s", json_key(settings, i));
        const Setting *setting = setting_find(path, &reward);
        if (!setting || setting->flags & SETTING_NO_NUMBERS) {
            return error_set(error, STATUS_REFUSED, "\"adapter\": unknown setting \"%.100s\"",
                             json_key(settings, i));
        }
        if (setting_parse(spec, setting, 0, json_at(settings, i), error)) {
            return error_context(error, STATUS_REFUSED, "\"%s\"", path);
        }
    }
    const char *method = spec->adapter.method;
    if (strcmp(method, "full") == 0 || strcmp(method, "none") == 0) {
        return error_set(error, STATUS_REFUSED, "adapter.method \"%s\" has no scalars", method);
    }
    return STATUS_OK;
}

static Status read_hash(char out[SHA256_HEX_SIZE], const Json *value, const char *key, Error *error)
{
    size_t n = 0;
    const char *hex = json_string(value, &n);
    if (!hex || n != SHA256_HEX_SIZE - 1 || strspn(hex, "0123456789abcdef") != n) {
        return error_set(error, STATUS_REFUSED, "\"%s\" is not a SHA-256 of 64 hex digits", key);
    }
    memcpy(out, hex, SHA256_HEX_SIZE);
    return STATUS_OK;
}

typedef struct {
    TensorType type;
    size_t n;
    char sha256[SHA256_HEX_SIZE];
} Values;

static Status read_values_entry(Values *values, const Json *entry, Error *error)
{
    const char *file = json_string(json_get(entry, "file"), NULL);
    const char *dtype = json_string(json_get(entry, "dtype"), NULL);
    int type = dtype ? plan_word_find(type_names, dtype) : -1;
    int64_t n;
    if (!file || strcmp(file, VALUES_FILE) != 0) {
        return error_set(error, STATUS_REFUSED, "\"values.file\" is not \"%s\"", VALUES_FILE);
    }
    if (type < 0) {
        return error_set(error, STATUS_REFUSED, "\"values.dtype\" is not f32, f16 or bf16");
    }
    if (!json_int64(json_get(entry, "n"), &n) || n < 1 || n > INT64_MAX / 8) {
        return error_set(error, STATUS_REFUSED, "\"values.n\" is not a number from 1");
    }
    values->type = (TensorType)type;
    values->n = (size_t)n;
    return read_hash(values->sha256, json_get(entry, "sha256"), "values.sha256", error);
}

static Status read_values(RunAdapter *adapter, const Values *values, const char *path, Error *error)
{
    char *bytes = NULL, sha256[SHA256_HEX_SIZE];
    size_t n_bytes = 0, expected = values->n * tensor_type_size(values->type);
    Status status = file_read(&bytes, &n_bytes, path, expected + 1, error);
    if (status) {
        return status;
    }
    sha256_bytes(sha256, bytes, n_bytes);
    size_t bad = n_bytes == expected ? tensor_find_nonfinite(bytes, values->type, values->n) : 0;
    if (n_bytes != expected) {
        status = error_set(error, STATUS_REFUSED, "%s: has %zu bytes, %zu scalars of %s have %zu",
                           path, n_bytes, values->n, type_names[values->type], expected);
    } else if (bad < values->n) {
        status =
            error_set(error, STATUS_REFUSED, "%s: scalar %zu is not a finite number", path, bad);
    } else if (strcmp(sha256, values->sha256) != 0) {
        status = error_set(error, STATUS_REFUSED,
                           "%s: its SHA-256 is %.12s.., the descriptor says %.12s..", path, sha256,
                           values->sha256);
    }
    adapter->v = status ? NULL : malloc(values->n * sizeof *adapter->v);
    if (!status && !adapter->v) {
        status = error_set(error, STATUS_FAILED, "no memory for %zu scalars", values->n);
    }
    if (!status) {
        tensor_to_f32(adapter->v, bytes, values->type, values->n);
        adapter->n = values->n;
    }
    free(bytes);
    return status;
}

static Status read_descriptor(RunAdapter *adapter, Values *values, const Json *root, Error *error)
{
    Status status = read_format(root, error);
    status = status ? status : read_settings(&adapter->spec, json_get(root, "adapter"), error);
    status = status ? status
                    : read_hash(adapter->weights_sha256,
                                json_get(json_get(root, "model"), "weights_sha256"),
                                "model.weights_sha256", error);
    status = status ? status : read_values_entry(values, json_get(root, "values"), error);
    int64_t step;
    adapter->step = json_int64(json_get(root, "step"), &step) && step >= 0 ? step : 0;
    if (!status && json_kind(json_get(json_get(root, "check"), "modules")) != JSON_ARRAY) {
        status = error_set(error, STATUS_REFUSED, "\"check.modules\" is missing");
    }
    return status;
}

Status descriptor_read(RunAdapter *adapter, const char *directory, Error *error)
{
    char path[FILE_PATH_MAX], values_path[FILE_PATH_MAX], map[FILE_PATH_MAX];
    JsonDocument *document = NULL;
    Values values;
    size_t n = 0;
    memset(adapter, 0, sizeof *adapter);
    settings_default(&adapter->spec);
    Status status = path_join(path, directory, DESCRIPTOR_FILE, error);
    status = status ? status : path_join(values_path, directory, VALUES_FILE, error);
    status = status ? status : path_join(map, directory, MAP_FILE, error);
    status = status ? status : file_read(&adapter->descriptor, &n, path, MAX_DESCRIPTOR, error);
    if (status) {
        return status;
    }
    status = json_parse(&document, adapter->descriptor, n, error);
    status = status ? status : read_descriptor(adapter, &values, json_root(document), error);
    if (!status && strcmp(adapter->spec.adapter.tie, "map") == 0 &&
        strcmp(adapter->spec.adapter.method, "tinylora") == 0) {
        if (strlen(map) >= sizeof adapter->spec.adapter.map) {
            status = error_set(error, STATUS_REFUSED, "the path of its tie map is too long");
        } else {
            strcpy(adapter->spec.adapter.map, map);
        }
    }
    status = status ? error_context(error, status, "%s", path)
                    : read_values(adapter, &values, values_path, error);
    json_free(document);
    if (status) {
        run_adapter_close(adapter);
    }
    return status;
}

/* ---- checking ---- */

static Status check_module(const Fingerprint *f, int m, const char *name, const Json *entry,
                           Error *error)
{
    const char *named = json_string(json_get(entry, "name"), NULL);
    int64_t group = -1;
    double probe;
    if (!named || strcmp(named, name) != 0) {
        return error_set(error, STATUS_REFUSED,
                         "module %d is \"%s\", the descriptor has \"%.100s\"", m, name,
                         named ? named : "?");
    }
    if (f->group[m] >= 0 &&
        (!json_int64(json_get(entry, "group"), &group) || group != f->group[m])) {
        return error_set(error, STATUS_REFUSED,
                         "\"%s\" is in tie group %d, the descriptor says %lld", name, f->group[m],
                         (long long)group);
    }
    if (!json_double(json_get(entry, "probe"), &probe) ||
        !fingerprint_probes_agree(f->probe[m], probe, f->size[m])) {
        return error_set(error, STATUS_REFUSED,
                         "\"%s\" is changed in another way than the descriptor says (probe %.6g): "
                         "other singular vectors were found than those it was trained with",
                         name, f->probe[m]);
    }
    return STATUS_OK;
}

static Status check(bool *same_bits, const Fingerprint *f, const Module *modules, const Json *told,
                    Error *error)
{
    const char *factors = json_string(json_get(told, "factors_sha256"), NULL);
    const char *projection = json_string(json_get(told, "projection_sha256"), NULL);
    const Json *list = json_get(told, "modules");
    Status status = STATUS_OK;
    if (!factors || !projection) {
        return error_set(error, STATUS_REFUSED, "\"check\" has no hashes");
    }
    if (json_size(list) != (size_t)f->n) {
        return error_set(error, STATUS_REFUSED, "%d modules are adapted, the descriptor has %zu",
                         f->n, json_size(list));
    }
    if (strcmp(projection, f->projection) != 0) {
        return error_set(error, STATUS_REFUSED,
                         "P derived again has the SHA-256 %.12s.., the descriptor says %.12s..",
                         f->projection, projection);
    }
    for (int m = 0; m < f->n && !status; m++) {
        char name[96];
        module_name(name, modules[m].layer, modules[m].role);
        status = check_module(f, m, name, json_at(list, (size_t)m), error);
    }
    *same_bits = strcmp(factors, f->factors) == 0;
    return status;
}

Status descriptor_check(const char *text, const char *name, const AdapterBank *bank,
                        const World *world, Error *error)
{
    Fingerprint fingerprint = {0};
    JsonDocument *document = NULL;
    int n;
    bool same_bits = true;
    const Module *modules = adapter_modules(bank, &n);
    Status status = json_parse(&document, text, strlen(text), error);
    status = status ? status : fingerprint_take(&fingerprint, bank, 1, error);
    status = status ? status
                    : check(&same_bits, &fingerprint, modules,
                            json_get(json_root(document), "check"), error);
    if (!status && !same_bits) {
        Text line = {0};
        text_printf(&line,
                    "%s: singular vectors found here differ in their last bits from those it was "
                    "made with (another CPU or library): results are near, not the same bits",
                    name);
        world->note(world->context, text_string(&line));
        text_release(&line);
    }
    fingerprint_release(&fingerprint);
    json_free(document);
    return status;
}
