/* core/safetensors: the rules of the format one by one, writing and reading back, conversions,
 * files cut and bent. */
#include "core/safetensors.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/shared.h"

static const char *const PATH = "test_core_safetensors.tmp";
static const char *const INDEX = "test_core_safetensors.tmp.index.json";

/* A file of this header and n_data bytes 0, 1, 2, ... */
static void write_raw(const char *header, size_t n_data)
{
    size_t n_header = strlen(header), n = 8 + n_header + n_data;
    unsigned char *bytes = calloc(n, 1);
    for (int i = 0; i < 8; i++) {
        bytes[i] = (unsigned char)(n_header >> 8 * i);
    }
    memcpy(bytes + 8, header, n_header);
    for (size_t i = 0; i < n_data; i++) {
        bytes[8 + n_header + i] = (unsigned char)i;
    }
    assert_int_equal(file_write(PATH, bytes, n, NULL), STATUS_OK);
    free(bytes);
}

static void assert_refused(const char *message)
{
    SafeTensors *file = NULL;
    Error error = {0};
    Status status = safetensors_open(&file, PATH, &error);
    assert_null(file);
    char expected[2000];
    snprintf(expected, sizeof expected, "%s: %s", PATH, message);
    assert_string_equal(error.message, expected);
    assert_int_equal(status, STATUS_REFUSED);
}

static void every_broken_rule_of_the_header_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        size_t n_data;
        const char *message;
    } cases[] = {
        {"", 4, "header: does not begin with '{'"},
        {" {}", 0, "header: does not begin with '{'"},
        {"[]", 0, "header: does not begin with '{'"},
        {"{\"a\":{}", 0, "header: line 1, column 8: ',' or '}' was expected"},
        {"{\"a\":3}", 0, "tensor \"a\": its entry is a number, not an object"},
        {"{\"a\":{\"shape\":[]}}", 0, "tensor \"a\": dtype is missing or not a string"},
        {"{\"a\":{\"dtype\":\"F17\"}}", 0, "tensor \"a\": dtype \"F17\" is unknown"},
        {"{\"a\":{\"dtype\":\"F16\\u0000x\"}}", 0, "tensor \"a\": dtype \"F16\" is unknown"},
        {"{\"a\":{\"dtype\":\"F16\"}}", 0, "tensor \"a\": shape is missing or not an array"},
        {"{\"a\":{\"dtype\":\"F16\",\"shape\":[-0]}}", 0, "tensor \"a\": shape[0] is not a size"},
        {"{\"a\":{\"dtype\":\"F16\",\"shape\":[2,2.0]}}", 0,
         "tensor \"a\": shape[1] is not a size"},
        {"{\"a\":{\"dtype\":\"F16\",\"shape\":[18446744073709551616]}}", 0,
         "tensor \"a\": shape[0] is not a size"},
        {"{\"a\":{\"dtype\":\"F16\",\"shape\":[1,1,1,1,1,1,1,1,1]}}", 0,
         "tensor \"a\": shape has 9 dimensions, at most 8 are read"},
        {"{\"a\":{\"dtype\":\"F16\",\"shape\":[4294967296,4294967296]}}", 0,
         "tensor \"a\": the product of its shape overflows"},
        {"{\"a\":{\"dtype\":\"F16\",\"shape\":[1152921504606846976]}}", 0,
         "tensor \"a\": the product of its shape overflows"},
        {"{\"a\":{\"dtype\":\"F16\",\"shape\":[1]}}", 2,
         "tensor \"a\": data_offsets is not a pair of sizes"},
        {"{\"a\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[0,2,4]}}", 2,
         "tensor \"a\": data_offsets is not a pair of sizes"},
        {"{\"a\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[2,0]}}", 2,
         "tensor \"a\": data_offsets [2, 0] run backwards"},
        {"{\"a\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,4]}}", 2,
         "tensor \"a\": data_offsets [0, 4] reach beyond the 2 bytes of data"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,2]}}", 2,
         "tensor \"a\": shape and dtype need 4 bytes, data_offsets give 2"},
        {"{\"a\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,2]}}", 2,
         "tensor \"a\": its 12 bits are not whole bytes"},
        {"{\"__metadata__\":[]}", 0, "__metadata__ is an array, not an object of strings"},
        {"{\"__metadata__\":{\"k\":1}}", 0, "__metadata__[\"k\"] is a number, not a string"},
        {"{\"\":{}}", 0, "tensor name \"\" is empty or has a NUL"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}", 2,
         "tensor \"a\": starts at 1, a hole after \"the header\" that ends at 0"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
         "\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}",
         3, "tensor \"b\": starts at 1, inside \"a\" that ends at 2"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}", 3,
         "the tensors end at 2, the data at 3: bytes that belong to no tensor"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]},\"\\u0061\":{}}", 0,
         "header: line 1: key \"a\" is there twice"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_raw(cases[i].header, cases[i].n_data);
        assert_refused(cases[i].message);
    }
    unlink(PATH);
}

static void what_is_no_safetensors_file_is_called_by_its_name(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t n;
        const char *message;
    } cases[] = {
        {"", 0, "has 0 bytes, fewer than the 8 of a header length"},
        {"\x02\0\0\0\0\0\0", 7, "has 7 bytes, fewer than the 8 of a header length"},
        {"\xf8\xff\xff\xff\xff\xff\xff\xff{}", 10,
         "header length 18446744073709551608 is above the limit of 100000000"},
        {"\x03\0\0\0\0\0\0\0{}", 10, "header length 3 reaches beyond the end of the file"},
        {"version https://git-lfs.github.com/spec/v1\n", 43,
         "is a git-lfs pointer, not the file itself (run git lfs pull)"},
        {"<!DOCTYPE html><html>", 21, "is an HTML page, not the file itself (a failed download?)"},
        {"PK\x03\x04________", 12,
         "is a zip archive (perhaps a PyTorch file), which is never opened"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(file_write(PATH, cases[i].bytes, cases[i].n, NULL), STATUS_OK);
        assert_refused(cases[i].message);
    }
    unlink(PATH);
    SafeTensors *file = NULL;
    Error error = {0};
    assert_int_equal(safetensors_open(&file, PATH, &error), STATUS_FAILED);
    assert_string_equal(error.message,
                        "test_core_safetensors.tmp: cannot be opened: No such file or directory");
    assert_int_equal(safetensors_open(&file, "/dev/zero", &error), STATUS_REFUSED);
    assert_string_equal(error.message, "/dev/zero: is not a regular file");
}

static void a_name_may_have_1024_bytes(void **state)
{
    (void)state;
    char name[1026] = "", header[1200];
    memset(name, 'n', 1025);
    snprintf(header, sizeof header,
             "{\"%s\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", name);
    write_raw(header, 0);
    SafeTensors *file = NULL;
    Error error = {0};
    assert_int_equal(safetensors_open(&file, PATH, &error), STATUS_REFUSED);
    assert_non_null(strstr(error.message, "n...\" has 1025 bytes, at most 1024 are read"));
    snprintf(header, sizeof header,
             "{\"%s\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", name + 1);
    write_raw(header, 0);
    assert_int_equal(safetensors_open(&file, PATH, &error), STATUS_OK);
    safetensors_close(file);
    unlink(PATH);
}

static void a_header_above_the_limit_is_not_read(void **state)
{
    (void)state;
    /* 100,000,001 bytes of header that do exist (as a hole in the file). */
    const unsigned char length[9] = {0x01, 0xe1, 0xf5, 0x05, 0, 0, 0, 0, '{'};
    assert_int_equal(file_write(PATH, length, sizeof length, NULL), STATUS_OK);
    assert_int_equal(truncate(PATH, 100000001 + 8), 0);
    assert_refused("header length 100000001 is above the limit of 100000000");
    unlink(PATH);
}

static void odd_addresses_empty_tensors_and_any_order_are_read(void **state)
{
    (void)state;
    write_raw(
        "{\"z\":{\"dtype\":\"F16\",\"shape\":[1,2],\"data_offsets\":[1,5],\"extra\":0},\n"
        "\"e\":{\"dtype\":\"F32\",\"shape\":[0,3],\"data_offsets\":[1,1]},\"__metadata__\":null,"
        "\"s\":{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[0,1]}} \t\r\n ",
        5);
    SafeTensors *file = NULL;
    Error error = {0};
    if (safetensors_open(&file, PATH, &error) != STATUS_OK) {
        fail_msg("%s", error.message);
    }
    assert_int_equal(safetensors_count(file), 3);
    assert_string_equal(safetensors_at(file, 0)->name, "s");
    assert_string_equal(safetensors_at(file, 1)->name, "e");
    assert_null(safetensors_at(file, 3));
    const Tensor *z = safetensors_find(file, "z");
    assert_ptr_equal(z, safetensors_at(file, 2));
    assert_int_equal(z->type, TENSOR_F16);
    assert_int_equal(z->n_dims, 2);
    assert_int_equal(z->dims[1], 2);
    float values[2];
    tensor_to_f32(values, z->data, z->type, 2);
    assert_true(values[0] == 0x201 * 0x1p-24f); /* a subnormal half: bytes 01 02 */
    assert_int_equal(safetensors_find(file, "s")->type, TENSOR_OTHER);
    assert_int_equal(safetensors_find(file, "s")->n_dims, 0);
    assert_null(safetensors_find(file, "y"));
    safetensors_close(file);
    unlink(PATH);
}

static void what_is_written_is_read_back(void **state)
{
    (void)state;
    float first[6] = {0.31f, -1.27f, 2.385f, 0, -0.0f, 1e-40f};
    uint16_t second[5] = {0x3f80, 0xbf81, 0x0001, 0x7f80, 0x7fc0};
    Tensor tensors[] = {
        {.name = "first \"quoted\"",
         .type = TENSOR_F32,
         .n_dims = 2,
         .dims = {2, 3},
         .data = first},
        {.name = "second", .type = TENSOR_BF16, .n_dims = 1, .dims = {5}, .data = second},
    };
    const char *metadata[] = {"format", "pt", "note", "a \\ b"};
    Error error = {0};
    assert_int_equal(safetensors_write(PATH, tensors, 2, metadata, 2, &error), STATUS_OK);
    SafeTensors *file = NULL;
    if (safetensors_open(&file, PATH, &error) != STATUS_OK) {
        fail_msg("%s", error.message);
    }
    assert_int_equal(safetensors_count(file), 2);
    const Tensor *tensor = safetensors_find(file, "first \"quoted\"");
    assert_int_equal((uintptr_t)tensor->data % 8, 0);
    assert_memory_equal(tensor->data, first, sizeof first);
    tensor = safetensors_find(file, "second");
    assert_string_equal(tensor->type_name, "BF16");
    assert_memory_equal(tensor->data, second, sizeof second);
    safetensors_forget(file, tensor);
    assert_memory_equal(tensor->data, second, sizeof second);
    safetensors_close(file);
    unlink(PATH);
    assert_int_equal(safetensors_write("/nonexistent/x", tensors, 2, NULL, 0, &error),
                     STATUS_FAILED);
    assert_non_null(strstr(error.message, "cannot be created: No such file or directory"));
}

/* Two shards of one tensor each and an index of this text. */
static void write_sharded(const char *index)
{
    float a[3] = {0.31f, -1.27f, 2.385f}, b[2] = {7, 8};
    Tensor tensors[] = {
        {.name = "a", .type = TENSOR_F32, .n_dims = 1, .dims = {3}, .data = a},
        {.name = "b", .type = TENSOR_F32, .n_dims = 2, .dims = {1, 2}, .data = b},
    };
    assert_int_equal(safetensors_write("test_core_shard_1.tmp", &tensors[0], 1, NULL, 0, NULL),
                     STATUS_OK);
    assert_int_equal(safetensors_write("test_core_shard_2.tmp", &tensors[1], 1, NULL, 0, NULL),
                     STATUS_OK);
    assert_int_equal(file_write(INDEX, index, strlen(index), NULL), STATUS_OK);
}

static void remove_sharded(void)
{
    unlink("test_core_shard_1.tmp");
    unlink("test_core_shard_2.tmp");
    unlink(INDEX);
}

static void shards_are_read_as_one(void **state)
{
    (void)state;
    write_sharded("{\"metadata\": {\"total_size\": 20}, \"weight_map\": "
                  "{\"b\": \"test_core_shard_2.tmp\", \"a\": \"test_core_shard_1.tmp\"}}");
    SafeTensors *file = NULL;
    Error error = {0};
    if (safetensors_open(&file, INDEX, &error) != STATUS_OK) {
        fail_msg("%s", error.message);
    }
    assert_int_equal(safetensors_count(file), 2);
    assert_string_equal(safetensors_at(file, 0)->name, "a");
    float values[2];
    tensor_to_f32(values, safetensors_find(file, "b")->data, TENSOR_F32, 2);
    assert_true(values[0] == 7 && values[1] == 8);
    char hex[SHA256_HEX_SIZE], expected[SHA256_HEX_SIZE], *bytes[2];
    size_t n[2];
    safetensors_sha256(hex, file);
    assert_int_equal(file_read(&bytes[0], &n[0], "test_core_shard_1.tmp", 1000, NULL), STATUS_OK);
    assert_int_equal(file_read(&bytes[1], &n[1], "test_core_shard_2.tmp", 1000, NULL), STATUS_OK);
    Sha256 *all = sha256_new();
    sha256_update(all, bytes[0], n[0]);
    sha256_update(all, bytes[1], n[1]);
    sha256_finish(all, expected);
    assert_string_equal(hex, expected);
    free(bytes[0]);
    free(bytes[1]);
    safetensors_close(file);
    remove_sharded();
}

static void an_index_that_lies_is_refused(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"[]", "\"weight_map\" is missing, empty or not an object"},
        {"{\"weight_map\": {}}", "\"weight_map\" is missing, empty or not an object"},
        {"{\"weight_map\": {\"a\": 3}}",
         "\"weight_map\": tensor \"a\": its shard is a number, not a string"},
        {"{\"weight_map\": {\"a\": \"../x\"}}",
         "\"weight_map\": tensor \"a\": \"../x\" is not the plain name of a file beside the index"},
        {"{\"weight_map\": {\"a\": \"x\\u0000y\"}}",
         "\"weight_map\": tensor \"a\": \"x\" is not the plain name of a file beside the index"},
        {"{\"weight_map\": {\"a\": \"..\"}}",
         "\"weight_map\": tensor \"a\": \"..\" is not the plain name of a file beside the index"},
        {"{\"weight_map\": {\"c\": \"test_core_shard_1.tmp\"}}",
         "\"weight_map\": tensor \"a\" lies in \"test_core_shard_1.tmp\", the map has it in no "
         "shard"},
        {"{\"weight_map\": {\"a\": \"test_core_shard_2.tmp\", \"b\": \"test_core_shard_1.tmp\"}}",
         "\"weight_map\": tensor \"a\" lies in \"test_core_shard_1.tmp\", the map has it in "
         "test_core_shard_2.tmp"},
        {"{\"weight_map\": {\"a\": \"test_core_shard_1.tmp\", \"c\": \"test_core_shard_1.tmp\"}}",
         "\"weight_map\": tensor \"c\" is not in \"test_core_shard_1.tmp\""},
        {"{\"metadata\": {\"total_size\": 21}, \"weight_map\": {\"a\": \"test_core_shard_1.tmp\", "
         "\"b\": \"test_core_shard_2.tmp\"}}",
         "\"total_size\" is 21, the tensors have 20 bytes"},
        {"{\"metadata\": [], \"weight_map\": {\"a\": \"test_core_shard_1.tmp\", "
         "\"b\": \"test_core_shard_2.tmp\"}}",
         "\"metadata\" is an array, not an object"},
        {"{\"weight_map\": {\"a\": \"absent.tmp\"}}", "./absent.tmp: is missing"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_sharded(cases[i][0]);
        SafeTensors *file = NULL;
        Error error = {0};
        char expected[1000];
        snprintf(expected, sizeof expected, "%s: %s", INDEX, cases[i][1]);
        Status status = safetensors_open(&file, INDEX, &error);
        assert_string_equal(error.message, expected);
        assert_int_not_equal(status, STATUS_OK);
    }
    char name[257] = "", index[400];
    memset(name, 'n', sizeof name - 1); /* longer than a file's name can be */
    snprintf(index, sizeof index, "{\"weight_map\": {\"a\": \"%s\"}}", name);
    write_sharded(index);
    SafeTensors *file = NULL;
    assert_int_equal(safetensors_open(&file, INDEX, NULL), STATUS_REFUSED);
    remove_sharded();
}

__extension__ typedef _Float16 Half;

/* Against the compiler's own half type; the whole range of halves, and every f32 of a set of hard
 * ones. */
static void every_half_converts_exactly_and_rounds_to_even(void **state)
{
    (void)state;
    for (uint32_t bits = 0; bits < 65536; bits++) {
        uint16_t half = (uint16_t)bits, back;
        Half reference;
        memcpy(&reference, &half, 2);
        float value;
        tensor_to_f32(&value, &half, TENSOR_F16, 1);
        float expected = (float)reference;
        assert_true(isnan(expected) ? isnan(value) : memcmp(&value, &expected, 4) == 0);
        if (!isnan(value)) {
            tensor_from_f32(&back, &value, TENSOR_F16, 1);
            assert_int_equal(back, half);
        }
        /* Just below, at and above the midpoint to the next half. */
        float next;
        uint16_t above = (uint16_t)(half + 1);
        tensor_to_f32(&next, &above, TENSOR_F16, 1);
        if (isfinite(value) && isfinite(next)) {
            float middle = value + (next - value) / 2;
            float three[3] = {nextafterf(middle, -INFINITY), middle, nextafterf(middle, INFINITY)};
            uint16_t rounded[3];
            tensor_from_f32(rounded, three, TENSOR_F16, 3);
            for (int i = 0; i < 3; i++) {
                Half right = (Half)three[i];
                assert_memory_equal(&rounded[i], &right, 2);
            }
        }
    }
    float edge[] = {65504, 65519.996f, 65520, 1e30f, INFINITY, NAN, -65520};
    uint16_t expected[] = {0x7bff, 0x7bff, 0x7c00, 0x7c00, 0x7c00, 0x7e00, 0xfc00}, got[7];
    tensor_from_f32(got, edge, TENSOR_F16, 7);
    assert_memory_equal(got, expected, sizeof got);
}

static void bf16_rounds_to_nearest_even(void **state)
{
    (void)state;
    static const uint32_t bits[] = {0x3f800000, 0x3f808000, 0x3f808001, 0x3f818000,
                                    0x3f817fff, 0x7f7fffff, 0x7f800000, 0xff800000,
                                    0x7f800001, 0x00000001, 0x80008000, 0x00018000};
    static const uint16_t expected[] = {0x3f80, 0x3f80, 0x3f81, 0x3f82, 0x3f81, 0x7f80,
                                        0x7f80, 0xff80, 0x7fc0, 0x0000, 0x8000, 0x0002};
    enum { N = sizeof expected / sizeof *expected };
    float values[N];
    uint16_t got[N];
    memcpy(values, bits, sizeof bits);
    tensor_from_f32(got, values, TENSOR_BF16, N);
    assert_memory_equal(got, expected, sizeof expected);
    tensor_to_f32(values, expected, TENSOR_BF16, N);
    assert_true(values[3] == 1.015625f && isinf(values[5]) && isnan(values[8]));
}

static void the_first_value_that_is_not_finite_is_found(void **state)
{
    (void)state;
    enum { N = 10007 };
    static float values[N];
    static unsigned char data[4 * N + 1];
    for (int type = TENSOR_F32; type <= TENSOR_BF16; type++) {
        for (size_t bad = 0; bad < N; bad += 953) {
            for (size_t i = 0; i < N; i++) {
                values[i] = i == bad ? (bad % 2 ? INFINITY : NAN) : i % 2 ? -60000 : 0.25f;
            }
            values[N - 1] = NAN;
            tensor_from_f32(data + 1, values, type, N);
            assert_int_equal(tensor_find_nonfinite(data + 1, type, N), bad);
            assert_int_equal(tensor_find_nonfinite(data + 1, type, bad), bad);
        }
    }
}

/* Under the sanitizers: the header cut at every byte and with every bit flipped gives a verdict,
 * never a crash. */
static void cut_and_bent_headers_never_crash(void **state)
{
    (void)state;
    write_raw("{\"a\":{\"dtype\":\"F16\",\"shape\":[1,2],\"data_offsets\":[0,4]},\"__metadata__\":{"
              "\"k\":\"v\"},\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
              8);
    char *whole;
    size_t n;
    assert_int_equal(file_read(&whole, &n, PATH, 1000, NULL), STATUS_OK);
    for (size_t cut = 0; cut < n; cut++) {
        SafeTensors *file = NULL;
        assert_int_equal(file_write(PATH, whole, cut, NULL), STATUS_OK);
        assert_int_equal(safetensors_open(&file, PATH, NULL), STATUS_REFUSED);
    }
    int n_accepted = 0;
    for (size_t bit = 0; bit < 8 * (n - 8); bit++) {
        whole[bit / 8] ^= (char)(1 << bit % 8);
        assert_int_equal(file_write(PATH, whole, n, NULL), STATUS_OK);
        whole[bit / 8] ^= (char)(1 << bit % 8);
        SafeTensors *file = NULL;
        Status status = safetensors_open(&file, PATH, NULL);
        assert_true(status == STATUS_OK || status == STATUS_REFUSED);
        for (size_t i = 0; status == STATUS_OK && i < safetensors_count(file); i++) {
            const Tensor *tensor = safetensors_at(file, i);
            volatile unsigned char sum = 0;
            for (size_t j = 0; j < tensor->n_bytes; j++) {
                sum = (unsigned char)(sum + ((const unsigned char *)tensor->data)[j]);
            }
        }
        n_accepted += status == STATUS_OK;
        safetensors_close(file);
    }
    /* Names, metadata and types of equal size may change without breaking a rule; most flips break
     * one. */
    assert_in_range(n_accepted, 1, 300);
    free(whole);
    unlink(PATH);
}

static void real_models_are_read(void **state)
{
    (void)state;
    char path[4096];
    shared_path(path, "data/models/stories260k/model.safetensors");
    SafeTensors *file = NULL;
    Error error = {0};
    if (safetensors_open(&file, path, &error) != STATUS_OK) {
        fail_msg("%s", error.message);
    }
    const Tensor *tensor = safetensors_find(file, "model.embed_tokens.weight");
    assert_non_null(tensor);
    assert_int_equal(tensor->dims[0], 512);
    assert_int_equal(tensor->dims[1], 64);
    assert_int_equal(tensor_find_nonfinite(tensor->data, tensor->type, 512 * 64), 512 * 64);
    safetensors_close(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_broken_rule_of_the_header_is_named),
        cmocka_unit_test(what_is_no_safetensors_file_is_called_by_its_name),
        cmocka_unit_test(a_name_may_have_1024_bytes),
        cmocka_unit_test(a_header_above_the_limit_is_not_read),
        cmocka_unit_test(odd_addresses_empty_tensors_and_any_order_are_read),
        cmocka_unit_test(what_is_written_is_read_back),
        cmocka_unit_test(shards_are_read_as_one),
        cmocka_unit_test(an_index_that_lies_is_refused),
        cmocka_unit_test(every_half_converts_exactly_and_rounds_to_even),
        cmocka_unit_test(bf16_rounds_to_nearest_even),
        cmocka_unit_test(the_first_value_that_is_not_finite_is_found),
        cmocka_unit_test(cut_and_bent_headers_never_crash),
        cmocka_unit_test(real_models_are_read),
    };
    if (chdir(BUILD_DIR) != 0) { /* temporary files go there */
        return 1;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
