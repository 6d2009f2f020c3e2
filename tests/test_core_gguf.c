/* core/gguf: the format, by files made here and by each of them broken at every byte and bit; the
 * quantised types, by what gguf's numpy code makes of the same blocks. */
#include "core/gguf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/tokenizer.h"
#include "core/tokenizer_gguf.h"
#include "tests/gguf_file.h"
#include "tests/gguf_golden.h"
#include "tests/tiny_model.h"

/* ---- files ----------------------------------------------------------------------------------- */

static void make_values(GgufFile *file)
{
    static const float floats[] = {0.31f, -1.27f};
    file_string(file, "general.name", "x");
    file_u32(file, "", "a.u32", 7);
    file_f32(file, "", "a.f32", 2.385f);
    put_bool(&file->values, "a.bool", true);
    put_array(&file->values, "a.strings", GGUF_STRING, 2);
    put_string(&file->values, "one", 3);
    put_string(&file->values, "", 0);
    put_array(&file->values, "a.floats", GGUF_FLOAT32, 2);
    put_bytes(&file->values, floats, sizeof floats);
    put_array(&file->values, "a.none", GGUF_INT64, 0);
    file->n_values += 4;
}

static void make_tensors(GgufFile *file)
{
    static const float vector[3] = {1, 2, 3};
    static const unsigned char blocks[2 * 34] = {0, 0x3c, 1, 2, 3};
    Tensor first = {.name = "v", .type = TENSOR_F32, .n_dims = 1, .dims = {3}, .n_bytes = 12};
    Tensor second = {
        .name = "m", .type = TENSOR_Q8_0, .n_dims = 2, .dims = {2, 32}, .n_bytes = sizeof blocks};
    file_tensor(file, &first, vector);
    file_tensor(file, &second, blocks);
}

static void make(Text *out)
{
    GgufFile file = {0};
    make_values(&file);
    make_tensors(&file);
    file_finish(&file, out);
}

static void what_was_written_is_read(void **state)
{
    (void)state;
    Text bytes = {0};
    Gguf *gguf;
    Error error = {{0}};
    make(&bytes);
    assert_int_equal(gguf_parse(&gguf, bytes.bytes, bytes.n, &error), STATUS_OK);
    int64_t integer = 0;
    double number = 0;
    bool flag = false;
    GgufString string;
    assert_int_equal(gguf_n_values(gguf), 7);
    assert_true(gguf_integer(gguf_find(gguf, "a.u32"), &integer) && integer == 7);
    assert_true(gguf_float(gguf_find(gguf, "a.f32"), &number) && (float)number == 2.385f);
    assert_true(gguf_bool(gguf_find(gguf, "a.bool"), &flag) && flag);
    assert_true(gguf_string(gguf_find(gguf, "general.name"), &string) && string.n == 1);
    assert_null(gguf_find(gguf, "a"));
    assert_false(gguf_integer(gguf_find(gguf, "a.f32"), &integer));
    assert_false(gguf_integer(gguf_find(gguf, "a.none"), &integer));
    assert_false(gguf_float(gguf_find(gguf, "a.floats"), &number)); /* an array */
    assert_true(gguf_float_at(gguf_find(gguf, "a.floats"), 1, &number) && number < -1);
    assert_string_equal(gguf_kind_name(gguf_find(gguf, "a.floats")), "array of f32");
    assert_string_equal(gguf_kind_name(NULL), "missing");
    GgufCursor cursor = {0};
    assert_true(gguf_next_string(gguf_find(gguf, "a.strings"), &cursor, &string));
    assert_memory_equal(string.bytes, "one", 3);
    assert_true(gguf_next_string(gguf_find(gguf, "a.strings"), &cursor, &string) && string.n == 0);
    assert_false(gguf_next_string(gguf_find(gguf, "a.strings"), &cursor, &string));
    assert_int_equal(gguf_n_tensors(gguf), 2);
    const Tensor *v = gguf_tensor(gguf, 0), *m = gguf_tensor(gguf, 1);
    float values[64];
    tensor_read(values, v);
    assert_true(values[0] == 1 && values[2] == 3);
    assert_true(m->dims[0] == 2 && m->dims[1] == 32 && m->type == TENSOR_Q8_0);
    tensor_read(values, m);
    assert_true(values[0] == 1 && values[1] == 2 && values[2] == 3 && values[63] == 0);
    gguf_close(gguf);
    text_release(&bytes);
}

/* ---- broken ones ----------------------------------------------------------------------------- */

static void put_at(Text *bytes, size_t at, const void *new_bytes, size_t n)
{
    memcpy(bytes->bytes + at, new_bytes, n);
}

static size_t find_bytes(const Text *bytes, const char *what)
{
    size_t n = strlen(what);
    for (size_t i = 0; i + n <= bytes->n; i++) {
        if (memcmp(bytes->bytes + i, what, n) == 0) {
            return i;
        }
    }
    abort();
}

/* Eight bytes at an offset from a text of the file become `value`; n: how many of them. */
static void every_rule_is_said(void **state)
{
    (void)state;
    static const struct {
        const char *after; /* NULL: from the start of the file */
        size_t offset, n;
        uint64_t value;
        const char *message;
    } cases[] = {
        {NULL, 0, 1, 'X', "does not begin with \"GGUF\""},
        {NULL, 4, 4, 1, "version 1 is not supported"},
        {NULL, 4, 4, 0x03000000, "as a big-endian file has it"},
        {NULL, 8, 8, UINT64_MAX, "18446744073709551615 tensors are more than 65536"},
        {NULL, 16, 8, (uint64_t)INT64_MAX, "9223372036854775807 values are more than 65536"},
        {NULL, 24, 8, UINT64_MAX, "value 1 of 7: the key has 18446744073709551615 bytes"},
        {NULL, 24, 8, 60000, "value 1 of 7: the key has 60000 bytes and reaches beyond"},
        {"general.name", 4, 1, ' ', "the key is empty or has other characters"},
        {"general.name", 12, 4, 13, "\"general.name\": type 13 is unknown"},
        {"general.name", 12, 4, 0x80000000, "type 2147483648 is unknown"},
        {"general.name", 16, 8, UINT64_MAX, "a string has 18446744073709551615 bytes"},
        {"general.name", 24, 1, 0xff, "a string is not UTF-8"},
        {"a.bool", 10, 1, 2, "\"a.bool\": a bool is 2"},
        {"a.strings", 13, 4, GGUF_ARRAY, "an array of arrays is not read"},
        {"a.strings", 13, 4, 99, "type 99 is unknown"},
        {"a.floats", 16, 8, (uint64_t)1 << 62, "an array of 4611686018427387904 elements reaches"},
        {"a.none", 2, 4, 0x656e6f6e, NULL}, /* "a.none" again: the control of this list */
        {"a.none", 22, 8, 0, "its name is empty"},
        {"a.none", 22, 8, 64, "its name has 64 bytes"},
        {"a.none", 31, 4, 0, "tensor \"v\": has 0 dimensions, not 1 to 4"},
        {"a.none", 31, 4, 5, "has 5 dimensions"},
        {"a.none", 35, 8, 0, "has a dimension of 0"},
        {"a.none", 35, 8, UINT64_MAX, "the product of its dimensions overflows"},
        {"a.none", 35, 8, (uint64_t)1 << 62, "its size in bytes overflows"},
        {"a.none", 35, 8, ((uint64_t)1 << 62) - 1, "the sizes of the tensors overflow"},
        {"a.none", 35, 8, 300, "offset is 32, the tensors before it end at 1216"},
        {"a.none", 43, 4, 4, "type 4 is unknown"},
        {"a.none", 43, 4, UINT32_MAX, "type 4294967295 is unknown"},
        {"a.none", 43, 4, GGUF_TENSOR_Q4_K, "rows of 3 are not whole blocks of 256 (Q4_K)"},
        {"a.none", 47, 8, 1, "offset is 1, the tensors before it end at 0"},
        {"a.none", 63, 1, 'v', "tensor \"v\" is there twice"},
        {"a.none", 76, 8, 4, "the tensors need 168 bytes of data, the file has 128"},
        {"a.none", 76, 8, 1, "32 bytes after the last tensor belong to none"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Text bytes = {0};
        Gguf *gguf = NULL;
        Error error = {{0}};
        make(&bytes);
        size_t at = cases[i].offset + (cases[i].after ? find_bytes(&bytes, cases[i].after) : 0);
        put_at(&bytes, at, &cases[i].value, cases[i].n);
        Status status = gguf_parse(&gguf, bytes.bytes, bytes.n, &error);
        if (!cases[i].message) {
            assert_int_equal(status, STATUS_OK);
            gguf_close(gguf);
        } else if (status != STATUS_REFUSED || !strstr(error.message, cases[i].message)) {
            fail_msg("case %zu: %d \"%s\", expected \"%s\"", i, status, error.message,
                     cases[i].message);
        }
        text_release(&bytes);
    }
}

static void a_key_that_is_there_twice_is_refused(void **state)
{
    (void)state;
    GgufFile file = {0};
    Text bytes = {0};
    Gguf *gguf;
    Error error = {{0}};
    make_values(&file);
    file_u32(&file, "", "a.u32", 8);
    file_finish(&file, &bytes);
    assert_int_equal(gguf_parse(&gguf, bytes.bytes, bytes.n, &error), STATUS_REFUSED);
    assert_string_equal(error.message, "the key \"a.u32\" is there twice");
    text_release(&bytes);
}

static void the_alignment_is_a_power_of_two_in_a_u32(void **state)
{
    (void)state;
    static const struct {
        uint32_t alignment;
        const char *message;
    } cases[] = {{32, NULL},    {0, "is 0, not a power"},
                 {1, "is 1"},   {13, "is 13, not a"},
                 {24, "is 24"}, {UINT32_C(1) << 31, "is 2147483648"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        GgufFile file = {0};
        Text bytes = {0};
        Gguf *gguf;
        Error error = {{0}};
        file_u32(&file, "general.", "alignment", cases[i].alignment);
        make_tensors(&file);
        file_finish(&file, &bytes);
        Status status = gguf_parse(&gguf, bytes.bytes, bytes.n, &error);
        assert_int_equal(status, cases[i].message ? STATUS_REFUSED : STATUS_OK);
        assert_true(!cases[i].message || strstr(error.message, cases[i].message));
        if (!status) {
            assert_int_equal(gguf_alignment(gguf), 32);
            gguf_close(gguf);
        }
        text_release(&bytes);
    }
    GgufFile file = {0};
    Text bytes = {0};
    Gguf *gguf;
    Error error = {{0}};
    file_string(&file, "general.alignment", "32");
    file_finish(&file, &bytes);
    assert_int_equal(gguf_parse(&gguf, bytes.bytes, bytes.n, &error), STATUS_REFUSED);
    assert_string_equal(error.message, "\"general.alignment\" is string, not u32");
    text_release(&bytes);
}

/* Everything that a file's bytes reach: the format, the config, the tensors, the tokenizer. The
 * bytes are in a block of their own, so that a sanitizer sees a read past their end. */
static bool read_all(const char *bytes, size_t n)
{
    char *copy = malloc(n + 1);
    memcpy(copy, bytes, n);
    char *exact = realloc(copy, n ? n : 1);
    Gguf *gguf;
    ModelConfig config;
    Tensor *tensors;
    char(*names)[128];
    size_t n_tensors;
    Text json = {0};
    bool whole = gguf_parse(&gguf, exact, n, NULL) == STATUS_OK;
    if (whole) {
        whole = gguf_model_config(&config, gguf, NULL) == STATUS_OK;
        if (gguf_model_tensors(&tensors, &names, &n_tensors, gguf, NULL) == STATUS_OK) {
            for (size_t i = 0; i < n_tensors; i++) {
                size_t count = tensor_n_elements(&tensors[i]);
                tensor_find_nonfinite(tensors[i].data, tensors[i].type, count);
            }
            free(tensors);
            free(names);
        }
        whole = tokenizer_gguf_json(&json, gguf, NULL) == STATUS_OK && whole;
        text_release(&json);
        gguf_close(gguf);
    }
    free(exact);
    return whole;
}

/* A model of one layer, as small as it can be. Returns where its data begin. */
static size_t make_model(Text *out)
{
    ModelConfig config = tiny_config(ARCHITECTURE_LLAMA, true);
    config.n_layers = 1;
    config.width = config.ff_width = 8;
    config.n_heads = config.n_kv_heads = 1;
    config.vocab_size = 262;
    char directory[256];
    GgufFile file = {0};
    tiny_model_write(directory, &config, 5);
    file_model(&file, directory, &config, NULL);
    tiny_model_remove(directory);
    size_t n_data = file.data.n;
    file_finish(&file, out);
    return out->n - n_data;
}

static void a_file_cut_anywhere_is_refused(void **state)
{
    (void)state;
    Text bytes = {0};
    size_t n_header = make_model(&bytes);
    assert_true(read_all(bytes.bytes, bytes.n));
    for (size_t n = 0; n < bytes.n; n += n < n_header ? 1 : 97) {
        assert_false(read_all(bytes.bytes, n));
    }
    text_release(&bytes);
}

static void a_flipped_bit_of_the_header_does_no_harm(void **state)
{
    (void)state;
    Text bytes = {0};
    size_t n_header = make_model(&bytes), n_whole = 0;
    for (size_t bit = 0; bit < 8 * n_header; bit++) {
        bytes.bytes[bit / 8] ^= (char)(1 << bit % 8);
        n_whole += read_all(bytes.bytes, bytes.n);
        bytes.bytes[bit / 8] ^= (char)(1 << bit % 8);
    }
    assert_true(n_whole < 8 * n_header * 3 / 4); /* scores and letters of tokens may be any */
    text_release(&bytes);
}

/* ---- quantised types ------------------------------------------------------------------------- */

static void check_golden(TensorType type, const unsigned char *bytes, size_t n_bytes,
                         const uint32_t *bits, size_t n)
{
    float *values = malloc(n * sizeof *values);
    assert_int_equal(tensor_type_bytes(type, n), n_bytes);
    tensor_to_f32(values, bytes, type, n);
    assert_memory_equal(values, bits, n * sizeof *values);
    assert_int_equal(tensor_find_nonfinite(bytes, type, n), n);
    free(values);
}

static void quantised_weights_are_what_gguf_reads(void **state)
{
    (void)state;
#define GOLDEN(type, name)                                                                         \
    check_golden(type, golden_##name##_bytes, sizeof golden_##name##_bytes, golden_##name##_bits,  \
                 sizeof golden_##name##_bits / 4)
    GOLDEN(TENSOR_Q8_0, q8_0);
    GOLDEN(TENSOR_Q4_0, q4_0);
    GOLDEN(TENSOR_Q4_K, q4_k);
    GOLDEN(TENSOR_Q6_K, q6_k);
    GOLDEN(TENSOR_Q5_0, q5_0);
}

/* Index of the second block's first weight, wherever its scale is. */
static void an_infinite_scale_is_found(void **state)
{
    (void)state;
    static const struct {
        TensorType type;
        size_t block, scale;
    } cases[] = {{TENSOR_Q8_0, 32, 0},  {TENSOR_Q4_0, 32, 0},    {TENSOR_Q4_K, 256, 0},
                 {TENSOR_Q4_K, 256, 2}, {TENSOR_Q6_K, 256, 208}, {TENSOR_Q5_0, 32, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        unsigned char bytes[3 * 210] = {0};
        size_t block_bytes = tensor_type_bytes(cases[i].type, cases[i].block);
        bytes[block_bytes + cases[i].scale + 1] = 0xfc;
        size_t n = 3 * cases[i].block;
        assert_int_equal(tensor_find_nonfinite(bytes, cases[i].type, n), cases[i].block);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_written_is_read),
        cmocka_unit_test(every_rule_is_said),
        cmocka_unit_test(a_key_that_is_there_twice_is_refused),
        cmocka_unit_test(the_alignment_is_a_power_of_two_in_a_u32),
        cmocka_unit_test(a_file_cut_anywhere_is_refused),
        cmocka_unit_test(a_flipped_bit_of_the_header_does_no_harm),
        cmocka_unit_test(quantised_weights_are_what_gguf_reads),
        cmocka_unit_test(an_infinite_scale_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
