/* The readers of model files under damage: each small file cut at every byte, and with every bit
 * flipped, is read whole or refused in one line; never another outcome, and under the sanitizers
 * never a report. By default the flips are a sample, of each byte one bit; with the argument "all"
 * they are all. */
#define _GNU_SOURCE /* memfd_create */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "core/model_config.h"
#include "core/safetensors.h"
#include "core/tokenizer.h"
#include "tests/fuzz/memory.h"
#include "tests/shared.h"

static bool all_bits;

static Status read_safetensors(const char *path, Error *error)
{
    SafeTensors *file = NULL;
    Status status = safetensors_open(&file, path, error);
    volatile unsigned char sum = 0;
    for (size_t i = 0; status == STATUS_OK && i < safetensors_count(file); i++) {
        const Tensor *tensor = safetensors_at(file, i);
        for (size_t j = 0; j < tensor->n_bytes; j++) { /* all of it can be read */
            sum = (unsigned char)(sum + ((const unsigned char *)tensor->data)[j]);
        }
    }
    safetensors_close(file);
    return status;
}

static Status read_tokenizer(const char *path, Error *error)
{
    static const char text[] = "Tom has 3 apples.";
    Tokenizer *tokenizer = NULL;
    TokenList ids = {0};
    Text back = {0};
    Status status = tokenizer_open(&tokenizer, path, error);
    if (status == STATUS_OK) {
        unsigned flags = TOKENIZER_PARSE_SPECIAL | TOKENIZER_ADD_SPECIAL;
        if (tokenizer_encode(tokenizer, text, sizeof text - 1, flags, &ids, NULL) == STATUS_OK) {
            tokenizer_decode(tokenizer, ids.ids, ids.n, false, &back);
        }
        tokenizer_free(tokenizer);
    }
    token_list_release(&ids);
    text_release(&back);
    return status;
}

static Status read_config(const char *path, Error *error)
{
    ModelConfig config;
    return model_config_read(&config, path, error);
}

#define SHARDED "badfiles/controls/qwen2-tiny-f32-sharded3/"
static const char *const shards[] = {"model-00001-of-00003.safetensors",
                                     "model-00002-of-00003.safetensors",
                                     "model-00003-of-00003.safetensors"};

/* Copies of the shards lie beside it. */
static Status read_index(const char *path, Error *error)
{
    static const char link[] = "torn.index.json";
    SafeTensors *file = NULL;
    unlink(link);
    if (symlink(path, link)) {
        abort();
    }
    Status status = safetensors_open(&file, link, error);
    safetensors_close(file);
    unlink(link);
    return status;
}

typedef Status (*Reader)(const char *path, Error *error);

static long n_read, n_refused;

static Status attempt(Reader read, const char *what, size_t place, const void *bytes, size_t n)
{
    char path[64];
    Error error = {0};
    memory_file(path, bytes, n);
    Status status = read(path, &error);
    n_read++;
    n_refused += status == STATUS_REFUSED;
    if (status != STATUS_OK && (status != STATUS_REFUSED || !error.message[0])) {
        fail_msg("%s, %zu: %d %s", what, place, status, error.message);
    }
    return status;
}

/* reach: only so many bytes at the start are bent, 0: all. */
static void tear(const char *relative, Reader read, size_t reach)
{
    char path[4096];
    char *bytes;
    size_t n;
    shared_path(path, relative);
    assert_int_equal(file_read(&bytes, &n, path, 1 << 24, NULL), STATUS_OK);
    reach = reach && reach < n ? reach : n;
    assert_int_equal(attempt(read, relative, 0, bytes, n), STATUS_OK);
    for (size_t cut = 0; cut < reach; cut++) {
        attempt(read, "cut", cut, bytes, cut);
    }
    for (size_t i = 0; i < reach; i++) {
        for (int bit = 0; bit < 8; bit++) {
            if (all_bits || bit == (int)(i * 5 % 8)) {
                bytes[i] ^= (char)(1 << bit);
                attempt(read, "bit", 8 * i + (size_t)bit, bytes, n);
                bytes[i] ^= (char)(1 << bit);
            }
        }
    }
    free(bytes);
}

static void headers_of_safetensors(void **state)
{
    (void)state;
    tear("badfiles/controls/llama-micro-f16/model.safetensors", read_safetensors, 8 + 1112);
}

static void an_index(void **state)
{
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        char name[128], path[4096], *bytes;
        size_t n;
        snprintf(name, sizeof name, SHARDED "%s", shards[i]);
        shared_path(path, name);
        assert_int_equal(file_read(&bytes, &n, path, 1 << 24, NULL), STATUS_OK);
        assert_int_equal(file_write(shards[i], bytes, n, NULL), STATUS_OK);
        free(bytes);
    }
    tear(SHARDED "model.safetensors.index.json", read_index, 0);
    for (size_t i = 0; i < 3; i++) {
        unlink(shards[i]);
    }
}

static void configs(void **state)
{
    (void)state;
    tear("badfiles/controls/llama-micro-f16/config.json", read_config, 0);
    tear(SHARDED "config.json", read_config, 0);
}

static void a_tokenizer(void **state)
{
    (void)state;
    tear("badfiles/controls/llama-micro-f16/tokenizer.json", read_tokenizer, all_bits ? 0 : 1200);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(headers_of_safetensors),
        cmocka_unit_test(an_index),
        cmocka_unit_test(configs),
        cmocka_unit_test(a_tokenizer),
    };
    all_bits = argc > 1 && strcmp(argv[1], "all") == 0;
    if (chdir(BUILD_DIR) != 0) { /* temporary files go there */
        return 1;
    }
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    print_message("%ld damaged files read, %ld of them refused\n", n_read, n_refused);
    return failed;
}
