/* Adapters leave for files: merged weights against sums in double, GGUF read by its specification,
 * and weights that are what they were after any number of merges. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "adapters/change.h"
#include "adapters/fingerprint.h"
#include "adapters/gguf_lora.h"
#include "adapters/merge.h"
#include "adapters/peft.h"
#include "tests/engine_batch.h"

static Error error;

/* A model of bf16 or f32 in a folder that stays. */
static Model *open_model(char directory[256], Architecture architecture, TensorType type)
{
    ModelConfig config = tiny_config(architecture, true);
    Model *model;
    config.n_kv_heads = 3;
    config.dtype = type;
    tiny_model_write(directory, &config, 5);
    tiny_require(model_open(&model, directory, 1, &error), &error);
    return model;
}

/* A bank of one adapter with v set; v is the caller's. */
static AdapterBank *open_bank(Model *model, const char *method, float **v)
{
    AdapterSpec spec = {.method = method,
                        .plan = {.rank = 2, .u = 3, .groups = 2, .tie = TIE_TILED},
                        .targets = (1 << N_ROLES) - 1,
                        .seed = 13,
                        .scale = 0.7f};
    AdapterBank *bank;
    tiny_require(adapter_bank_new(&bank, model, &spec, 1, 1, NULL, NULL, NULL, &error), &error);
    size_t n = adapter_parameters(bank);
    *v = malloc(n * sizeof **v + 1);
    for (size_t i = 0; i < n; i++) {
        (*v)[i] = (float)(0.3 * random_normal((RandomKey){8, RANDOM_DATA}, (uint32_t)i, 0, 0, 0));
    }
    adapter_set(bank, 1, *v, 1);
    return bank;
}

static float neighbour(const unsigned char *bytes, int step)
{
    uint16_t bits;
    float value;
    memcpy(&bits, bytes, sizeof bits);
    bits = (uint16_t)(bits + step);
    tensor_to_f32(&value, &bits, TENSOR_BF16, 1);
    return value;
}

/* Of all numbers that bf16 has, the stored one is nearest to W + b a in double. */
static void check_matrix(const SafeTensors *merged, const AdapterBank *bank, int m,
                         MergeReport *expected)
{
    int n_modules, n_out, n_in, rank = 2;
    Module module = adapter_modules(bank, &n_modules)[m];
    char name[128];
    module_name(name, module.layer, module.role);
    strcat(name, ".weight");
    role_shape(&adapter_model(bank)->config, module.role, &n_out, &n_in);
    const Tensor *now = safetensors_find(merged, name);
    const Tensor *then = safetensors_find(adapter_model(bank)->file, name);
    float *a = malloc((size_t)rank * (n_in + n_out) * sizeof *a), *b = a + rank * n_in;
    adapter_product(bank, 1, m, a, b);
    assert_non_null(now);
    for (int e = 0; e < n_out * n_in; e++) {
        const unsigned char *bytes = (const unsigned char *)now->data + 2 * e;
        float base;
        tensor_to_f32(&base, (const char *)then->data + 2 * e, TENSOR_BF16, 1);
        double sum = (double)base, distance;
        double change = 0;
        for (int j = 0; j < rank; j++) {
            change += (double)b[e / n_in * rank + j] * (double)a[j * n_in + e % n_in];
        }
        sum += change;
        distance = fabs((double)neighbour(bytes, 0) - sum);
        assert_true(distance <= fabs((double)neighbour(bytes, 1) - sum));
        assert_true(distance <= fabs((double)neighbour(bytes, -1) - sum));
        expected->largest_rounding = fmax(expected->largest_rounding, distance);
        expected->largest_change = fmax(expected->largest_change, fabs(change));
        expected->n_adapted++;
        expected->n_changed += neighbour(bytes, 0) != base;
    }
    free(a);
}

static void merged_weights_are_rounded_once_to_the_nearest(void **state)
{
    (void)state;
    static const char *const methods[] = {"tinylora", "lora", "lora-xs"};
    for (int k = 0; k < 3; k++) {
        char directory[256], target[300], path[400];
        float *v;
        MergeReport report, expected = {0};
        SafeTensors *merged;
        Model *model = open_model(directory, k % 2 ? ARCHITECTURE_QWEN3 : ARCHITECTURE_QWEN2,
                                  TENSOR_BF16),
              *again;
        AdapterBank *bank = open_bank(model, methods[k], &v);
        snprintf(target, sizeof target, "%s-merged", directory);
        snprintf(path, sizeof path, "%s/model.safetensors", target);
        tiny_require(adapter_merge(&report, bank, v, target, &error), &error);
        tiny_require(safetensors_open(&merged, path, &error), &error);
        for (int m = 0; m < 2 * N_ROLES; m++) {
            check_matrix(merged, bank, m, &expected);
        }
        assert_true(report.largest_rounding == expected.largest_rounding);
        /* Sums of two products in another order. */
        assert_true(fabs(report.largest_change - expected.largest_change) < 1e-12);
        assert_int_equal(report.n_adapted, expected.n_adapted);
        assert_int_equal(report.n_changed, expected.n_changed);
        assert_true(report.kept > 0.99 && report.kept < 1.01);
        tiny_require(model_open(&again, target, 1, &error), &error);
        model_free(again);
        assert_int_equal(adapter_merge(&report, bank, v, target, &error), STATUS_USAGE);
        assert_non_null(strstr(error.message, "exists already and is not empty"));
        v[0] = INFINITY;
        adapter_set(bank, 1, v, 1);
        strcat(target, "2");
        assert_int_equal(adapter_merge(&report, bank, v, target, &error), STATUS_REFUSED);
        assert_non_null(strstr(error.message, "which BF16 cannot hold"));
        assert_false(directory_exists(target));
        target[strlen(target) - 1] = 0;
        safetensors_close(merged);
        adapter_bank_free(bank);
        model_free(model);
        tiny_model_remove(target);
        tiny_model_remove(directory);
        free(v);
    }
}

/* The whole of a file; its length into n. */
static unsigned char *slurp(const char *path, size_t *n)
{
    char *bytes;
    tiny_require(file_read(&bytes, n, path, 1 << 24, &error), &error);
    return (unsigned char *)bytes;
}

typedef struct {
    const unsigned char *at;
} Cursor;

static uint64_t take(Cursor *c, int n_bytes)
{
    uint64_t value = 0;
    for (int i = 0; i < n_bytes; i++) {
        value |= (uint64_t)c->at[i] << 8 * i;
    }
    c->at += n_bytes;
    return value;
}

static void take_string(Cursor *c, char out[128])
{
    size_t n = take(c, 8);
    assert_true(n < 128);
    memcpy(out, c->at, n);
    out[n] = 0;
    c->at += n;
}

static void check_metadata(Cursor *c, uint64_t n, const char *architecture)
{
    int seen = 0;
    for (uint64_t i = 0; i < n; i++) {
        char key[128], text[128] = "";
        float number = 0;
        take_string(c, key);
        uint64_t type = take(c, 4);
        if (type == 8) {
            take_string(c, text);
        } else {
            uint32_t bits = (uint32_t)take(c, 4);
            memcpy(&number, &bits, sizeof number);
        }
        seen += strcmp(key, "general.type") == 0 && strcmp(text, "adapter") == 0;
        seen += strcmp(key, "adapter.type") == 0 && strcmp(text, "lora") == 0;
        seen += strcmp(key, "general.architecture") == 0 && strcmp(text, architecture) == 0;
        seen += strcmp(key, "adapter.lora.alpha") == 0 && type == 6 && number == 2;
    }
    assert_int_equal(seen, 4);
}

/* Row of b that a row of the file holds. transformers' head: halves; llama.cpp's: neighbours
 * (convert_hf_to_gguf.py: reshape(heads, 2, half).swapaxes(1, 2)). */
static int row_of(int row, int head_dim, bool permuted)
{
    int head = row / head_dim, inside = row % head_dim;
    return permuted ? head * head_dim + (inside % 2 ? head_dim / 2 : 0) + inside / 2 : row;
}

/* gguf: the family's name there, whose rows of q and k are permuted or not. */
static void check_gguf(Architecture architecture, const char *gguf, bool permuted)
{
    static const char *const names[] = {"attn_q",   "attn_k", "attn_v",  "attn_output",
                                        "ffn_gate", "ffn_up", "ffn_down"};
    char directory[256], path[300], key[128], expected[128];
    float *v;
    size_t n_bytes;
    Model *model = open_model(directory, architecture, TENSOR_F32);
    AdapterBank *bank = open_bank(model, "lora", &v);
    snprintf(path, sizeof path, "%s.gguf", directory);
    tiny_require(gguf_lora_write(path, bank, 1, "test", &error), &error);
    unsigned char *bytes = slurp(path, &n_bytes);
    Cursor c = {bytes + 4};
    assert_memory_equal(bytes, "GGUF", 4);
    assert_int_equal(take(&c, 4), 3);
    uint64_t n_tensors = take(&c, 8), n_entries = take(&c, 8);
    assert_int_equal(n_tensors, 2 * 2 * N_ROLES);
    check_metadata(&c, n_entries, gguf);
    uint64_t offsets[4 * N_ROLES];
    for (uint64_t i = 0; i < n_tensors; i++) {
        int n_out, n_in;
        Role role = (Role)(i / 2 % N_ROLES);
        role_shape(&model->config, role, &n_out, &n_in);
        take_string(&c, key);
        snprintf(expected, sizeof expected, "blk.%d.%s.weight.lora_%c", (int)(i / 2 / N_ROLES),
                 names[role], i % 2 ? 'b' : 'a');
        assert_string_equal(key, expected);
        assert_int_equal(take(&c, 4), 2);
        assert_int_equal(take(&c, 8), i % 2 ? 2 : n_in); /* the fastest dimension first */
        assert_int_equal(take(&c, 8), i % 2 ? n_out : 2);
        assert_int_equal(take(&c, 4), 0);
        offsets[i] = take(&c, 8);
        assert_int_equal(offsets[i] % 32, 0);
    }
    const unsigned char *data = bytes + ((size_t)(c.at - bytes) + 31) / 32 * 32;
    for (int m = 0; m < 2 * N_ROLES; m++) {
        int n_out, n_in;
        Role role = (Role)(m % N_ROLES);
        role_shape(&model->config, role, &n_out, &n_in);
        float a[2 * 64], b[2 * 64];
        adapter_product(bank, 1, m, a, b);
        assert_true(offsets[2 * m + 1] + (size_t)n_out * 8 <= n_bytes - (size_t)(data - bytes));
        assert_memory_equal(data + offsets[2 * m], a, (size_t)n_in * 8);
        for (int row = 0; row < n_out; row++) {
            int from =
                row_of(row, model->config.head_dim, permuted && (role == ROLE_Q || role == ROLE_K));
            assert_memory_equal(data + offsets[2 * m + 1] + (size_t)row * 8, b + from * 2, 8);
        }
    }
    assert_int_equal(gguf_lora_write(path, bank, 1, "test", &error), STATUS_USAGE);
    assert_non_null(strstr(error.message, "exists already"));
    unlink(path);
    free(bytes);
    adapter_bank_free(bank);
    model_free(model);
    tiny_model_remove(directory);
    free(v);
}

static void a_gguf_file_is_what_its_specification_says(void **state)
{
    (void)state;
    check_gguf(ARCHITECTURE_LLAMA, "llama", true);
    check_gguf(ARCHITECTURE_QWEN2, "qwen2", false);
    check_gguf(ARCHITECTURE_QWEN3, "qwen3", false);
    check_gguf(ARCHITECTURE_MISTRAL, "llama", true);
}

static void ten_thousand_merges_leave_the_weights_as_they_were(void **state)
{
    (void)state;
    char directory[256];
    float *v;
    Model *model = open_model(directory, ARCHITECTURE_QWEN2, TENSOR_BF16);
    AdapterBank *bank = open_bank(model, "full", &v);
    size_t n = adapter_parameters(bank);
    float *pristine = malloc(n * sizeof *pristine);
    Data before, after;
    Engine *engine;
    adapter_initial(bank, pristine);
    adapter_use_base(bank, true, 1);
    tiny_require(engine_new(&engine, model, 1, 0, &error), &error);
    for (int pass = 0; pass < 2; pass++) {
        Data *d = pass ? &after : &before;
        data_init(d, model->config.vocab_size);
        for (int s = 0; s < N_SEQUENCES; s++) {
            d->sequences[s].adapter = 0;
        }
        Batch batch = {.sequences = d->sequences, .n_sequences = N_SEQUENCES};
        tiny_require(engine_evaluate(engine, &batch, &error), &error);
        for (int i = 0; i < 10000 && pass == 0; i++) {
            v[i % n] += 0.01f;
            adapter_use_base(bank, false, 1);
            adapter_set(bank, 1, v, 1);
            assert_memory_equal(model->trainable, v, n * sizeof *v);
            adapter_use_base(bank, true, 1);
            assert_memory_equal(model->trainable, pristine, n * sizeof *v);
        }
    }
    assert_memory_equal(before.logprobs, after.logprobs, sizeof before.logprobs);
    engine_free(engine);
    adapter_bank_free(bank);
    model_free(model);
    tiny_model_remove(directory);
    free(pristine);
    free(v);
}

/* The adapters that stand beside the weights: v goes on and off 10,000 times, one time in 1000 it
 * is merged into files. Nothing of it stays: the base's numbers, its file and its merged model are
 * those of before. */
static void ten_thousand_adapters_on_and_off_leave_no_trace(void **state)
{
    (void)state;
    static const char *const methods[] = {"tinylora", "lora", "lora-xs"};
    for (int k = 0; k < 3; k++) {
        char directory[256], target[300], path[400], own[400], hashes[4][SHA256_HEX_SIZE];
        float *v, *other;
        Engine *engine;
        MergeReport report;
        Model *model = open_model(directory, ARCHITECTURE_QWEN2, TENSOR_BF16);
        AdapterBank *bank = open_bank(model, methods[k], &v);
        size_t n = adapter_parameters(bank);
        Data before, after;
        other = calloc(n, sizeof *other);
        snprintf(target, sizeof target, "%s-merged", directory);
        snprintf(path, sizeof path, "%s/model.safetensors", target);
        snprintf(own, sizeof own, "%s/model.safetensors", directory);
        tiny_require(engine_new(&engine, model, 1, 0, &error), &error);
        for (int pass = 0; pass < 2; pass++) {
            Data *d = pass ? &after : &before;
            tiny_require(adapter_merge(&report, bank, v, target, &error), &error);
            tiny_require(sha256_file(hashes[2 * pass], path, &error), &error);
            tiny_require(sha256_file(hashes[2 * pass + 1], own, &error), &error);
            tiny_model_remove(target);
            data_init(d, model->config.vocab_size);
            Batch batch = {
                .sequences = d->sequences, .n_sequences = N_SEQUENCES, .hook = adapter_hook(bank)};
            for (int s = 0; s < N_SEQUENCES; s++) {
                d->sequences[s].adapter = d->sequences[s].adapter > 0;
            }
            tiny_require(engine_evaluate(engine, &batch, &error), &error);
            for (int i = 0; i < 10000 && pass == 0; i++) {
                other[i % n] += 0.01f * (float)(i % 7);
                adapter_set(bank, 1, other, 1);
                if (i % 1000 == 0) {
                    tiny_require(adapter_merge(&report, bank, other, target, &error), &error);
                    tiny_model_remove(target);
                }
                adapter_set(bank, 1, v, 1);
            }
        }
        assert_string_equal(hashes[0], hashes[2]);
        assert_string_equal(hashes[1], hashes[3]);
        assert_string_not_equal(hashes[0], hashes[1]);
        assert_memory_equal(before.logprobs, after.logprobs, sizeof before.logprobs);
        engine_free(engine);
        adapter_bank_free(bank);
        model_free(model);
        tiny_model_remove(directory);
        free(other);
        free(v);
    }
}

static void fingerprints_see_a_sign_and_a_small_change(void **state)
{
    (void)state;
    char directory[256];
    float *v;
    Fingerprint one, other;
    Model *model = open_model(directory, ARCHITECTURE_LLAMA, TENSOR_F32);
    AdapterBank *bank = open_bank(model, "tinylora", &v);
    tiny_require(fingerprint_take(&one, bank, 1, &error), &error);
    assert_int_equal(one.n, 2 * N_ROLES);
    assert_int_equal(strlen(one.factors), 64);
    assert_int_equal(strlen(one.projection), 64);
    assert_true(fingerprint_probes_agree(one.probe[0], one.probe[0], one.size[0]));
    assert_false(fingerprint_probes_agree(one.probe[0], -one.probe[0], one.size[0]));
    v[0] *= 1.1f;
    v[1] *= 1.1f;
    v[2] *= 1.1f;
    adapter_set(bank, 1, v, 1);
    tiny_require(fingerprint_take(&other, bank, 1, &error), &error);
    assert_string_equal(one.factors, other.factors);
    assert_false(fingerprint_probes_agree(one.probe[0], other.probe[0], one.size[0]));
    fingerprint_release(&one);
    fingerprint_release(&other);
    adapter_bank_free(bank);
    model_free(model);
    tiny_model_remove(directory);
    free(v);
}

static void a_peft_folder_gives_the_matrices_that_went_in(void **state)
{
    (void)state;
    char directory[256], target[300], path[400];
    float *v;
    PeftAdapter peft;
    Model *model = open_model(directory, ARCHITECTURE_LLAMA, TENSOR_F32);
    AdapterBank *bank = open_bank(model, "lora", &v);
    snprintf(target, sizeof target, "%s-peft", directory);
    tiny_require(peft_lora_write(target, bank, 1, "base", &error), &error);
    tiny_require(peft_read(&peft, target, &model->config, &error), &error);
    assert_int_equal(peft.rank, 2);
    assert_int_equal(peft.n, adapter_parameters(bank));
    assert_string_equal(peft.weights_sha256, model_weights_sha256(model));
    float *at = peft.v;
    for (int m = 0; m < 2 * N_ROLES; m++) {
        int n_out, n_in;
        float a[2 * 64], b[2 * 64];
        role_shape(&model->config, (Role)(m % N_ROLES), &n_out, &n_in);
        adapter_product(bank, 1, m, a, b);
        assert_memory_equal(at, a, (size_t)n_in * 8);
        assert_memory_equal(at + 2 * n_in, b, (size_t)n_out * 8);
        at += 2 * (n_in + n_out);
    }
    free(peft.v);
    model->config.n_layers = 1;
    assert_int_equal(peft_read(&peft, target, &model->config, &error), STATUS_REFUSED);
    assert_non_null(strstr(error.message, "belongs to no linear layer of this model"));
    model->config.n_layers = 2;
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", target, i ? PEFT_CONFIG_FILE : PEFT_WEIGHTS_FILE);
        unlink(path);
    }
    rmdir(target);
    adapter_bank_free(bank);
    model_free(model);
    tiny_model_remove(directory);
    free(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merged_weights_are_rounded_once_to_the_nearest),
        cmocka_unit_test(a_gguf_file_is_what_its_specification_says),
        cmocka_unit_test(ten_thousand_merges_leave_the_weights_as_they_were),
        cmocka_unit_test(ten_thousand_adapters_on_and_off_leave_no_trace),
        cmocka_unit_test(fingerprints_see_a_sign_and_a_small_change),
        cmocka_unit_test(a_peft_folder_gives_the_matrices_that_went_in),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
