/* Elements of the weight types to f32, and of the plain ones back. No denormal takes part, so that a
 * thread that flushes denormals reads the same numbers. Plain loops that the compiler vectorises.
 */
#include <stdlib.h>
#include <string.h>

#include "core/gguf_quant.h"
#include "core/safetensors.h"

bool tensor_type_plain(TensorType type)
{
    return type <= TENSOR_BF16;
}

size_t tensor_type_size(TensorType type)
{
    return type == TENSOR_F32 ? 4 : tensor_type_plain(type) ? 2 : 0;
}

const char *tensor_type_name(TensorType type)
{
    static const char *const names[] = {"F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_K", "Q6_K", "Q5_0", "?"};
    return names[type];
}

size_t tensor_type_bytes(TensorType type, size_t n)
{
    size_t block_bytes = tensor_type_size(type), block = 1;
    if (!block_bytes && type != TENSOR_OTHER) {
        block = quant_block(type, &block_bytes);
    }
    return n / block * block_bytes;
}

static float float_of_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint32_t bits_of_float(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static uint32_t f32_bits_from_f16(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16;
    uint32_t magnitude = half & 0x7fffu;
    uint32_t normal = (magnitude << 13) + ((127u - 15u) << 23);
    uint32_t special = (magnitude << 13) + ((255u - 31u) << 23);
    /* A subnormal half is magnitude * 2^-24, a normal f32. */
    uint32_t subnormal = bits_of_float((float)(int32_t)magnitude * 0x1p-24f);
    uint32_t bits = magnitude >= 0x7c00 ? special : magnitude < 0x0400 ? subnormal : normal;
    return sign | bits;
}

static uint16_t f16_from_f32_bits(uint32_t bits)
{
    uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    /* 65536 and above; from 65520 on the rounding of a normal half carries there */
    uint32_t special = magnitude > 0x7f800000 ? 0x7e00 : 0x7c00;
    uint32_t rebiased = magnitude - ((127u - 15u) << 23); /* a carry may enter the exponent */
    uint32_t normal = (rebiased + 0x0fff + (rebiased >> 13 & 1)) >> 13;
    /* Below 2^-14: beside 0.5 the last bit of an f32 is 2^-24, a subnormal half's. */
    uint32_t subnormal = bits_of_float(float_of_bits(magnitude) + 0.5f) - 0x3f000000;
    uint32_t half = magnitude >= 0x47800000   ? special
                    : magnitude >= 0x38800000 ? normal
                                              : subnormal;
    return (uint16_t)(sign | half);
}

static uint16_t bf16_from_f32_bits(uint32_t bits)
{
    uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    uint32_t quiet = bits >> 16 | 0x0040;
    return (uint16_t)((bits & 0x7fffffff) > 0x7f800000 ? quiet : rounded);
}

static uint16_t load16(const unsigned char *bytes)
{
    uint16_t value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

void tensor_to_f32(float *out, const void *data, TensorType type, size_t n)
{
    const unsigned char *bytes = data;
    if (type == TENSOR_F32) {
        memcpy(out, data, n * sizeof *out);
    } else if (type == TENSOR_BF16) {
        for (size_t i = 0; i < n; i++) {
            out[i] = float_of_bits((uint32_t)load16(bytes + 2 * i) << 16);
        }
    } else if (type == TENSOR_F16) {
        for (size_t i = 0; i < n; i++) {
            out[i] = float_of_bits(f32_bits_from_f16(load16(bytes + 2 * i)));
        }
    } else if (type != TENSOR_OTHER) {
        quant_to_f32(out, data, type, n);
    }
}

static void store16(unsigned char *bytes, uint16_t value)
{
    memcpy(bytes, &value, sizeof value);
}

void tensor_from_f32(void *out, const float *in, TensorType type, size_t n)
{
    unsigned char *bytes = out;
    if (type == TENSOR_F32) {
        memcpy(out, in, n * sizeof *in);
    } else if (type == TENSOR_BF16) {
        for (size_t i = 0; i < n; i++) {
            store16(bytes + 2 * i, bf16_from_f32_bits(bits_of_float(in[i])));
        }
    } else if (type == TENSOR_F16) {
        for (size_t i = 0; i < n; i++) {
            store16(bytes + 2 * i, f16_from_f32_bits(bits_of_float(in[i])));
        }
    }
}

/* A block at a time: the inner loops have no exit, so they vectorise. */
size_t tensor_find_nonfinite(const void *data, TensorType type, size_t n)
{
    enum { BLOCK = 4096 };
    const unsigned char *bytes = data;
    uint16_t exponent16 = type == TENSOR_F16 ? 0x7c00 : 0x7f80;
    size_t size = tensor_type_size(type);
    if (!size && type != TENSOR_OTHER) {
        return quant_find_nonfinite(data, type, n);
    }
    for (size_t start = 0; size && start < n; start += BLOCK) {
        size_t end = n - start < BLOCK ? n : start + BLOCK;
        uint32_t bad = 0;
        for (size_t i = start; size == 2 && i < end; i++) {
            bad |= (load16(bytes + 2 * i) & exponent16) == exponent16;
        }
        for (size_t i = start; size == 4 && i < end; i++) {
            uint32_t bits;
            memcpy(&bits, bytes + 4 * i, sizeof bits);
            bad |= (bits & 0x7f800000) == 0x7f800000;
        }
        for (size_t i = start; bad && i < end; i++) {
            float value = 0;
            tensor_to_f32(&value, bytes + size * i, type, 1);
            if ((bits_of_float(value) & 0x7f800000) == 0x7f800000) {
                return i;
            }
        }
    }
    return n;
}

/* ---- tensors --------------------------------------------------------------------------------- */

static size_t row_length(const Tensor *tensor)
{
    return tensor->n_dims ? tensor->dims[tensor->n_dims - 1] : 1;
}

size_t tensor_n_elements(const Tensor *tensor)
{
    size_t n = 1;
    for (int i = 0; i < tensor->n_dims; i++) {
        n *= tensor->dims[i];
    }
    return n;
}

size_t turned_row(int turned, size_t row)
{
    size_t head = (size_t)turned, place = head ? row % head : 0, half = head / 2;
    return head ? row - place + place % half * 2 + place / half : row;
}

size_t turned_row_back(int turned, size_t file_row)
{
    size_t head = (size_t)turned, place = head ? file_row % head : 0;
    return head ? file_row - place + place % 2 * (head / 2) + place / 2 : file_row;
}

const void *tensor_row(const Tensor *tensor, size_t row)
{
    size_t bytes = tensor_type_bytes(tensor->type, row_length(tensor));
    return (const char *)tensor->data + turned_row(tensor->turned, row) * bytes;
}

void tensor_read_rows(float *out, const Tensor *tensor, size_t first, size_t n_rows)
{
    size_t n = row_length(tensor);
    for (size_t row = 0; row < n_rows; row++) {
        tensor_to_f32(out + row * n, tensor_row(tensor, first + row), tensor->type, n);
    }
}

Tensor tensor_rows(const Tensor *tensor)
{
    Tensor rows = *tensor;
    if (rows.n_dims < 2) {
        size_t n = tensor_n_elements(tensor);
        rows.n_dims = 2;
        rows.dims[0] = tensor->turned ? n : 1;
        rows.dims[1] = tensor->turned ? 1 : n;
    }
    return rows;
}

void tensor_read(float *out, const Tensor *tensor)
{
    if (!tensor->turned) {
        tensor_to_f32(out, tensor->data, tensor->type, tensor_n_elements(tensor));
        return;
    }
    Tensor rows = tensor_rows(tensor);
    tensor_read_rows(out, &rows, 0, rows.dims[0]);
}

Status tensor_plain(Tensor *plain, void **owned, const Tensor *tensor, Error *error)
{
    bool is_plain = tensor_type_plain(tensor->type);
    *plain = *tensor;
    *owned = NULL;
    if (is_plain && !tensor->turned) {
        return STATUS_OK;
    }
    size_t n = tensor_n_elements(tensor);
    plain->turned = 0;
    plain->type = is_plain ? tensor->type : TENSOR_F32;
    plain->type_name = tensor_type_name(plain->type);
    plain->n_bytes = n * tensor_type_size(plain->type);
    plain->data = *owned = malloc(plain->n_bytes + 1);
    if (!*owned) {
        return error_set(error, STATUS_FAILED, "no memory for tensor \"%s\", %.2f GiB",
                         tensor->name, (double)plain->n_bytes / 0x1p30);
    }
    if (!is_plain) {
        tensor_read(*owned, tensor);
        return STATUS_OK;
    }
    Tensor rows = tensor_rows(tensor);
    size_t bytes = row_length(&rows) * tensor_type_size(rows.type);
    for (size_t row = 0; row < rows.dims[0]; row++) {
        memcpy((char *)*owned + row * bytes, tensor_row(&rows, row), bytes);
    }
    return STATUS_OK;
}
