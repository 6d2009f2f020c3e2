/* What the tests of GGUF models at the program share: one model as a directory and as two files. */
#pragma once
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/tokenizer_gguf.h"
#include "tests/cli_run.h"
#include "tests/gguf_file.h"
#include "tests/tiny_model.h"

/* Matrices as Q8_0, by the largest weight of a block (ggml-quants.c, quantize_row_q8_0_ref). */
static inline void put_q8_0(Text *out, const float *values, size_t n)
{
    for (size_t start = 0; start < n; start += 32) {
        float largest = 0;
        uint16_t scale;
        for (size_t i = start; i < start + 32; i++) {
            largest = fmaxf(largest, fabsf(values[i]));
        }
        float step = largest / 127;
        tensor_from_f32(&scale, &step, TENSOR_F16, 1);
        put_bytes(out, &scale, sizeof scale);
        for (size_t i = start; i < start + 32; i++) {
            int8_t code = (int8_t)lrintf(step > 0 ? values[i] / step : 0);
            put_bytes(out, &code, 1);
        }
    }
}

/* The file at `from` with its matrices quantised. */
static inline void quantise(const char *from, const char *to)
{
    Gguf *gguf;
    GgufFile file = {0};
    Text bytes = {0};
    size_t n_values;
    assert_int_equal(gguf_open(&gguf, from, NULL), STATUS_OK);
    const void *values = gguf_value_bytes(gguf, &n_values);
    put_bytes(&file.values, values, n_values);
    file.n_values = gguf_n_values(gguf);
    for (size_t i = 0; i < gguf_n_tensors(gguf); i++) {
        Tensor tensor = *gguf_tensor(gguf, i);
        Text data = {0};
        size_t n = tensor_n_elements(&tensor);
        float *read = malloc(n * sizeof *read);
        tensor_read(read, &tensor);
        if (tensor.n_dims == 2) {
            tensor.type = TENSOR_Q8_0;
            put_q8_0(&data, read, n);
        } else {
            put_bytes(&data, read, n * sizeof *read);
        }
        tensor.n_bytes = data.n;
        file_tensor(&file, &tensor, data.bytes);
        text_release(&data);
        free(read);
    }
    gguf_close(gguf);
    file_finish(&file, &bytes);
    assert_int_equal(file_write(to, bytes.bytes, bytes.n, NULL), STATUS_OK);
    text_release(&bytes);
}

/* A directory and a file of the same weights and tokenizer. */
static inline void gguf_model(const char *into, const char *path, TensorType type)
{
    ModelConfig config = tiny_config(ARCHITECTURE_LLAMA, true);
    config.width = 32;
    config.n_heads = 2;
    config.head_dim = 16;
    config.ff_width = 64;
    config.vocab_size = 290;
    config.dtype = type;
    char directory[256], command[600], inside[300];
    GgufFile file = {0};
    Text bytes = {0}, json = {0};
    Gguf *gguf;
    tiny_model_write(directory, &config, 3);
    snprintf(command, sizeof command, "mv '%s' '%s'", directory, into);
    assert_int_equal(system(command), 0);
    file_model(&file, into, &config, NULL);
    file_finish(&file, &bytes);
    assert_int_equal(file_write(path, bytes.bytes, bytes.n, NULL), STATUS_OK);
    assert_int_equal(gguf_parse(&gguf, bytes.bytes, bytes.n, NULL), STATUS_OK);
    assert_int_equal(tokenizer_gguf_json(&json, gguf, NULL), STATUS_OK);
    snprintf(inside, sizeof inside, "%s/tokenizer.json", into);
    assert_int_equal(file_write(inside, json.bytes, json.n, NULL), STATUS_OK);
    gguf_close(gguf);
    text_release(&bytes);
    text_release(&json);
}
