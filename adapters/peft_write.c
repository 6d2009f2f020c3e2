/* Tensors are made one module at a time, between the header and the end of the file. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "adapters/change.h"
#include "adapters/method.h"
#include "adapters/peft.h"
#include "adapters/planners.h"
#include "core/file.h"
#include "core/text.h"

/* What is written of each module: names and shapes first, numbers later. */
typedef struct {
    const AdapterBank *bank;
    int adapter, rank, n_modules;
    const Module *modules;
    bool tinylora;
    const float *v; /* tinylora: as the model sees it */
    int n_v;        /* vectors of u scalars */
    const int *of;  /* (n_v) group that a vector is of */
    Tensor *tensors;
    char (*names)[160];
    size_t n;
    FileWriter writer;
} Peft;

static void add_tensor(Peft *p, size_t d0, size_t d1, size_t d2)
{
    Tensor *tensor = &p->tensors[p->n];
    *tensor = (Tensor){.name = p->names[p->n],
                       .type = TENSOR_F32,
                       .n_dims = d2   ? 3
                                 : d1 ? 2
                                      : 1,
                       .dims = {d0, d1, d2}};
    p->n++;
}

static void list_tensors(Peft *p)
{
    const AdapterSpec *spec = adapter_spec(p->bank);
    size_t rank = (size_t)p->rank, u = (size_t)spec->plan.u;
    for (int g = 0; g < p->n_v; g++) {
        snprintf(p->names[p->n], sizeof p->names[0], "base_model.tinylora_v.%d", g);
        add_tensor(p, u, 0, 0);
    }
    for (int m = 0; m < p->n_modules; m++) {
        static const char *const lora[] = {"lora_A.weight", "lora_B.weight"};
        static const char *const tiny[] = {"tinylora_A", "tinylora_B", "tinylora_P"};
        char module[96];
        int n_out, n_in;
        module_name(module, p->modules[m].layer, p->modules[m].role);
        role_shape(&adapter_model(p->bank)->config, p->modules[m].role, &n_out, &n_in);
        for (int k = 0; k < (p->tinylora ? 3 : 2); k++) {
            snprintf(p->names[p->n], sizeof p->names[0], "base_model.model.%s.%s", module,
                     p->tinylora ? tiny[k] : lora[k]);
            add_tensor(p,
                       k == 0   ? rank
                       : k == 1 ? (size_t)n_out
                                : u,
                       k == 0 ? (size_t)n_in : rank, k == 2 ? rank : 0);
        }
    }
}

/* A and B as TinyLoRA's W' = W + B R A has them. */
static void split_factors(float *a, float *b, const Factors *f, SigmaSplit sigma)
{
    size_t rank = (size_t)f->rank;
    for (size_t j = 0; j < rank; j++) {
        float left = sigma == SIGMA_SQRT ? sqrtf(f->s[j]) : f->s[j];
        float right = sigma == SIGMA_SQRT ? left : 1;
        for (size_t i = 0; i < (size_t)f->n_in; i++) {
            a[j * f->n_in + i] = right * f->v[j * f->n_in + i];
        }
        for (size_t o = 0; o < (size_t)f->n_out; o++) {
            b[o * rank + j] = f->u[j * f->n_out + o] * left;
        }
    }
}

static Status put(Peft *p, const float *values, size_t n, Error *error)
{
    return file_writer_append(&p->writer, values, n * sizeof *values, error);
}

static Status put_projection(Peft *p, const AdapterFrozen *frozen, Error *error)
{
    size_t n = (size_t)frozen->u * p->rank * p->rank;
    float *scaled = malloc(n * sizeof *scaled), s = adapter_spec(p->bank)->scale;
    if (!scaled) {
        return error_set(error, STATUS_FAILED, "no memory for a P");
    }
    for (size_t i = 0; i < n; i++) {
        scaled[i] = s * frozen->projection[i];
    }
    Status status = put(p, scaled, n, error);
    free(scaled);
    return status;
}

static Status put_module(Peft *p, int m, Error *error)
{
    int n_out, n_in;
    AdapterFrozen frozen = {0};
    role_shape(&adapter_model(p->bank)->config, p->modules[m].role, &n_out, &n_in);
    size_t n_a = (size_t)p->rank * n_in, n_b = (size_t)p->rank * n_out;
    float *a = malloc((n_a + n_b) * sizeof *a);
    if (!a) {
        return error_set(error, STATUS_FAILED, "no memory for the matrices of a module");
    }
    float *b = a + n_a;
    if (p->tinylora) {
        adapter_frozen(p->bank, m, &frozen);
        split_factors(a, b, frozen.factors, adapter_spec(p->bank)->sigma);
    } else {
        adapter_product(p->bank, p->adapter, m, a, b);
    }
    Status status = put(p, a, n_a + n_b, error);
    free(a);
    return status || !p->tinylora ? status : put_projection(p, &frozen, error);
}

static Status put_weights(Peft *p, const char *folder, Error *error)
{
    const char *const metadata[] = {"format", "pt", "tinylora.weights_sha256",
                                    model_weights_sha256(adapter_model(p->bank))};
    char path[FILE_PATH_MAX];
    size_t u = (size_t)adapter_spec(p->bank)->plan.u;
    size_t n = (size_t)p->n_v + (size_t)p->n_modules * (p->tinylora ? 3 : 2);
    Status status = path_join(path, folder, PEFT_WEIGHTS_FILE, error);
    p->tensors = calloc(n, sizeof *p->tensors);
    p->names = calloc(n, sizeof *p->names);
    if (!status && (!p->tensors || !p->names)) {
        status = error_set(error, STATUS_FAILED, "no memory for %zu tensors", n);
    }
    if (status) {
        return status;
    }
    list_tensors(p);
    /* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): the caller releases p's */
    status = safetensors_begin(&p->writer, path, p->tensors, p->n, metadata, 2, error);
    if (status) {
        return status;
    }
    for (int g = 0; g < p->n_v && !status; g++) {
        status = put(p, p->v + (size_t)p->of[g] * u, u, error);
    }
    for (int m = 0; m < p->n_modules && !status; m++) {
        status = put_module(p, m, error);
    }
    status = status ? status : file_writer_commit(&p->writer, error);
    if (status) {
        file_writer_cancel(&p->writer);
    }
    return status;
}

static void add_common(Text *out, const Peft *p, const char *type, const char *base)
{
    const char *separator = "[";
    text_printf(out, "{\n  \"peft_type\": \"%s\",\n  \"task_type\": \"CAUSAL_LM\",\n", type);
    text_add(out, "  \"base_model_name_or_path\": ");
    text_json_string(out, base, strlen(base));
    text_printf(out, ",\n  \"inference_mode\": true,\n  \"r\": %d,\n  \"bias\": \"none\",\n",
                p->rank);
    text_add(out, "  \"fan_in_fan_out\": false,\n  \"modules_to_save\": null,\n"
                  "  \"target_modules\": ");
    for (int role = 0; role < N_ROLES; role++) {
        if (adapter_spec(p->bank)->targets >> role & 1) {
            text_printf(out, "%s\"%s\"", separator, role_name((Role)role));
            separator = ", ";
        }
    }
    text_add(out, "],\n");
}

static Status write_folder(Peft *p, const char *directory, const Text *config, Error *error)
{
    FileWriter folder;
    char path[FILE_PATH_MAX];
    if (directory_occupied(directory)) {
        return error_set(error, STATUS_USAGE, "%s: exists already and is not empty", directory);
    }
    Status status = directory_writer_open(&folder, directory, error);
    if (status) {
        return status;
    }
    status = put_weights(p, folder.temporary, error);
    status = status ? status : path_join(path, folder.temporary, PEFT_CONFIG_FILE, error);
    status = status ? status : file_write(path, config->bytes, config->n, error);
    status = status ? status : directory_writer_commit(&folder, error);
    if (status) {
        directory_writer_cancel(&folder);
    }
    free(p->tensors);
    free(p->names);
    return status;
}

Status peft_lora_write(const char *directory, const AdapterBank *bank, int adapter,
                       const char *base, Error *error)
{
    Peft p = {.bank = bank, .adapter = adapter, .rank = adapter_spec(bank)->plan.rank};
    Text config = {0};
    p.modules = adapter_modules(bank, &p.n_modules);
    if (!p.modules) {
        return error_set(
            error, STATUS_USAGE,
            "adapter.method \"%s\" is no product of thin matrices; export it as merged",
            adapter_spec(bank)->method);
    }
    add_common(&config, &p, "LORA", base);
    text_printf(&config,
                "  \"lora_alpha\": %d,\n  \"lora_dropout\": 0.0,\n  \"use_rslora\": false,\n"
                "  \"use_dora\": false,\n  \"init_lora_weights\": true\n}\n",
                p.rank);
    Status status = write_folder(&p, directory, &config, error);
    text_release(&config);
    return status;
}

/* ---- TinyLoRA ---- */

/* PEFT's weight_tying that makes so many groups of n modules, or -1. */
static double find_tying(int n, int groups)
{
    double tying = 1 - (double)groups / n;
    for (int k = -4; k <= 4; k++) { /* rounding may fall on either side of a half */
        double near = tying + k * 0.05 / n;
        if (near >= 0 && near <= 1 && planner_peft_groups(n, near) == groups) {
            return near;
        }
    }
    return -1;
}

/* group: (n_modules) of each module. Does PEFT cut them so? */
static bool is_peft_cut(const int *group, int n, int groups)
{
    int size = n / groups > 1 ? n / groups : 1;
    for (int m = 0; m < n; m++) {
        int theirs = m / size < groups - 1 ? m / size : groups - 1;
        if (group[m] != theirs) {
            return false;
        }
    }
    return true;
}

static const float *round_v(float *out, const float *v, size_t n, TensorType type)
{
    unsigned char bytes[sizeof(float)];
    for (size_t i = 0; i < n; i++) {
        tensor_from_f32(bytes, v + i, type, 1);
        tensor_to_f32(out + i, bytes, type, 1);
    }
    return out;
}

static Status tie(Peft *p, int *group, double *tying, bool untie, Error *error)
{
    const Plan *plan = &adapter_spec(p->bank)->plan;
    int n = p->n_modules;
    for (int m = 0; m < n; m++) {
        AdapterFrozen frozen;
        adapter_frozen(p->bank, m, &frozen);
        group[m] = frozen.group;
    }
    *tying = untie ? 0 : find_tying(n, plan->groups);
    if (!untie && (*tying < 0 || !is_peft_cut(group, n, plan->groups))) {
        return error_set(
            error, STATUS_USAGE,
            "PEFT ties neighbours in the modules' order alone, %d each and the rest to "
            "the last of %d groups, which this plan does not; --untie gives each "
            "module a v of its own (the same model; trained further in PEFT they "
            "part), peft-lora is exact too",
            n / plan->groups > 1 ? n / plan->groups : 1, plan->groups);
    }
    p->n_v = untie ? n : plan->groups;
    for (int g = 0; g < p->n_v && !untie; g++) {
        group[g] = g; /* a vector a group */
    }
    p->of = group;
    return STATUS_OK;
}

Status peft_tinylora_write(const char *directory, const AdapterBank *bank, const float *v,
                           bool untie, const char *base, Error *error)
{
    const AdapterSpec *spec = adapter_spec(bank);
    Peft p = {.bank = bank, .adapter = 1, .rank = spec->plan.rank, .tinylora = true};
    Text config = {0};
    double tying = 0;
    if (strcmp(spec->method, "tinylora") != 0) {
        return error_set(error, STATUS_USAGE,
                         "adapter.method \"%s\" is not TinyLoRA; export it as %s", spec->method,
                         bank->method->modules ? "peft-lora" : "merged");
    }
    p.modules = adapter_modules(bank, &p.n_modules);
    int *group = malloc((size_t)p.n_modules * sizeof *group);
    float *seen = malloc((size_t)spec->plan.parameters * sizeof *seen);
    Status status = group && seen ? tie(&p, group, &tying, untie, error)
                                  : error_set(error, STATUS_FAILED, "out of memory");
    if (!status) {
        p.v = round_v(seen, v, (size_t)spec->plan.parameters, spec->plan.dtype);
        add_common(&config, &p, "TINYLORA", base);
        text_printf(&config,
                    "  \"u\": %d,\n  \"weight_tying\": %.17g,\n  \"projection_seed\": %llu,\n"
                    "  \"save_projection\": true,\n  \"init_v_bound\": 0.02,\n"
                    "  \"tinylora_dropout\": 0.0,\n  \"init_weights\": true\n}\n",
                    spec->plan.u, tying, (unsigned long long)(spec->seed & 0x7fffffff));
        status = write_folder(&p, directory, &config, error);
    }
    text_release(&config);
    free(group);
    free(seen);
    return status;
}
