#include "core/gguf_write.h"

#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "GGUF is little-endian");

static void add_u32(Text *out, uint32_t value)
{
    text_append(out, (const char *)&value, sizeof value);
}

static void add_u64(Text *out, uint64_t value)
{
    text_append(out, (const char *)&value, sizeof value);
}

static void add_bytes(Text *out, const char *string)
{
    add_u64(out, strlen(string));
    text_append(out, string, strlen(string));
}

void gguf_add_start(Text *header, size_t n_tensors, size_t n_values)
{
    text_append(header, "GGUF", 4);
    add_u32(header, GGUF_VERSION);
    add_u64(header, n_tensors);
    add_u64(header, n_values);
}

void gguf_add_string(Text *header, const char *key, const char *value)
{
    add_bytes(header, key);
    add_u32(header, GGUF_STRING);
    add_bytes(header, value);
}

void gguf_add_u32(Text *header, const char *key, uint32_t value)
{
    add_bytes(header, key);
    add_u32(header, GGUF_UINT32);
    add_u32(header, value);
}

void gguf_add_f32(Text *header, const char *key, float value)
{
    add_bytes(header, key);
    add_u32(header, GGUF_FLOAT32);
    text_append(header, (const char *)&value, sizeof value);
}

static uint32_t type_number(TensorType type)
{
    static const uint32_t numbers[] = {
        [TENSOR_F32] = GGUF_TENSOR_F32,   [TENSOR_F16] = GGUF_TENSOR_F16,
        [TENSOR_BF16] = GGUF_TENSOR_BF16, [TENSOR_Q8_0] = GGUF_TENSOR_Q8_0,
        [TENSOR_Q4_0] = GGUF_TENSOR_Q4_0, [TENSOR_Q4_K] = GGUF_TENSOR_Q4_K,
        [TENSOR_Q6_K] = GGUF_TENSOR_Q6_K, [TENSOR_Q5_0] = GGUF_TENSOR_Q5_0,
    };
    return numbers[type];
}

void gguf_add_tensor(Text *header, const Tensor *tensor, size_t alignment, size_t *offset)
{
    add_bytes(header, tensor->name);
    add_u32(header, (uint32_t)tensor->n_dims);
    for (int i = tensor->n_dims - 1; i >= 0; i--) {
        add_u64(header, tensor->dims[i]);
    }
    add_u32(header, type_number(tensor->type));
    add_u64(header, *offset);
    *offset += gguf_padded(tensor->n_bytes, alignment);
}

void gguf_add_padding(Text *header, size_t alignment)
{
    while (header->n % alignment) {
        text_append(header, "", 1);
    }
}

size_t gguf_padded(size_t n, size_t alignment)
{
    return (n + alignment - 1) / alignment * alignment;
}
