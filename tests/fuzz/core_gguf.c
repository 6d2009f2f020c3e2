/* Any bytes as a GGUF file: refused, or values that are found under their keys, and tensors whose
 * every byte can be read, as numbers where they are weights. The bytes are where the fuzzer has
 * them, so that a sanitizer sees their end. */
#include <stdlib.h>
#include <string.h>

#include "core/gguf.h"
#include "tests/fuzz/fuzz.h"

static volatile uint8_t sink;

static void touch(const void *data, size_t n)
{
    uint8_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        sum = (uint8_t)(sum + ((const uint8_t *)data)[i]);
    }
    sink = sum;
}

static void use_value(const Gguf *gguf, const GgufValue *value)
{
    char key[256];
    int64_t integer;
    double number;
    bool truth;
    GgufString string;
    GgufCursor cursor = {0};
    size_t n = 0;
    if (value->n_key < sizeof key) {
        memcpy(key, value->key, value->n_key);
        key[value->n_key] = 0;
        if (gguf_find(gguf, key) != value) {
            abort();
        }
    }
    gguf_kind_name(value);
    int kinds = gguf_integer(value, &integer) + gguf_float(value, &number) +
                gguf_bool(value, &truth) + gguf_string(value, &string);
    if (kinds > 1 || (value->is_array && kinds)) {
        abort();
    }
    if (gguf_string(value, &string)) {
        touch(string.bytes, string.n);
    }
    for (size_t i = 0; i < value->n; i++) {
        gguf_integer_at(value, i, &integer);
        gguf_float_at(value, i, &number);
    }
    while (gguf_next_string(value, &cursor, &string)) {
        touch(string.bytes, string.n);
        n++;
    }
    if (value->is_array && value->kind == GGUF_STRING && n != value->n) {
        abort();
    }
}

static void use_tensor(const Tensor *tensor)
{
    size_t n = tensor_n_elements(tensor);
    touch(tensor->data, tensor->n_bytes);
    if (tensor->type == TENSOR_OTHER) {
        return;
    }
    float *values = malloc(n * sizeof *values);
    if (!values) {
        abort();
    }
    tensor_read(values, tensor);
    tensor_find_nonfinite(tensor->data, tensor->type, n);
    free(values);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    Gguf *gguf;
    Status status = gguf_parse(&gguf, bytes, n, NULL);
    if (status != STATUS_OK) {
        if (status != STATUS_REFUSED) {
            abort();
        }
        return 0;
    }
    for (size_t i = 0; i < gguf_n_values(gguf); i++) {
        use_value(gguf, gguf_value(gguf, i));
    }
    for (size_t i = 0; i < gguf_n_tensors(gguf); i++) {
        use_tensor(gguf_tensor(gguf, i));
    }
    gguf_close(gguf);
    return 0;
}
