/* Elements of the three weight types to f32 and back. No denormal takes part, so that a
 * thread that flushes denormals reads the same numbers. Plain loops that the compiler vectorises.
 */
#include <string.h>

#include "core/safetensors.h"

size_t tensor_type_size(TensorType type)
{
    return type == TENSOR_F32 ? 4 : type == TENSOR_OTHER ? 0 : 2;
}

const char *tensor_type_name(TensorType type)
{
    static const char *const names[] = {"F32", "F16", "BF16", "?"};
    return names[type];
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
