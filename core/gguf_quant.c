/* Blocks of quantised weights as ggml lays them out (ggml-quants.c, dequantize_row_*). */
#include "core/gguf_quant.h"

#include <string.h>

/* Where a block has its f16 scales, that must be finite. */
static const struct {
    size_t block, bytes, group;
    int n_scales;
    size_t scales[2];
} layouts[] = {
    [TENSOR_Q8_0] = {32, 34, 32, 1, {0, 0}},   [TENSOR_Q4_0] = {32, 18, 32, 1, {0, 0}},
    [TENSOR_Q4_K] = {256, 144, 32, 2, {0, 2}}, [TENSOR_Q6_K] = {256, 210, 16, 1, {208, 0}},
    [TENSOR_Q5_0] = {32, 22, 32, 1, {0, 0}},
};

size_t quant_block(TensorType type, size_t *n_bytes)
{
    *n_bytes = layouts[type].bytes;
    return layouts[type].block;
}

size_t quant_group_size(TensorType type)
{
    return layouts[type].group;
}

static float half_at(const unsigned char *bytes)
{
    float value;
    tensor_to_f32(&value, bytes, TENSOR_F16, 1);
    return value;
}

/* 32 weights: a scale, then signed bytes. */
static void group_q8_0(float *scale, int8_t *codes, const unsigned char *block)
{
    *scale = half_at(block);
    memcpy(codes, block + 2, 32);
}

/* 32 weights: a scale, then halves of bytes; the low halves are the first 16. */
static void group_q4_0(float *scale, int8_t *codes, const unsigned char *block)
{
    *scale = half_at(block);
    for (int i = 0; i < 16; i++) {
        codes[i] = (int8_t)((block[2 + i] & 15) - 8);
        codes[16 + i] = (int8_t)((block[2 + i] >> 4) - 8);
    }
}

/* The same with four bytes in between: the fifth bit of each weight, the first in the lowest. */
static void group_q5_0(float *scale, int8_t *codes, const unsigned char *block)
{
    uint32_t fifth = (uint32_t)block[2] | (uint32_t)block[3] << 8 | (uint32_t)block[4] << 16 |
                     (uint32_t)block[5] << 24;
    *scale = half_at(block);
    for (int i = 0; i < 16; i++) {
        codes[i] = (int8_t)((int)((block[6 + i] & 15) | (fifth >> i & 1) << 4) - 16);
        codes[16 + i] = (int8_t)((int)(block[6 + i] >> 4 | (fifth >> (16 + i) & 1) << 4) - 16);
    }
}

/* 256 weights in 8 groups of 32, each with a scale and a minimum of 6 bits that are packed into 12
 * bytes; 32 bytes of codes hold one group in their low and the next in their high halves. */
static void group_q4_k(float *scale, float *offset, int8_t *codes, const unsigned char *block,
                       size_t group)
{
    const unsigned char *packed = block + 4, *from = block + 16 + group / 2 * 32;
    int s =
        group < 4 ? packed[group] & 63 : (packed[group + 4] & 15) | (packed[group - 4] >> 6) << 4;
    int m = group < 4 ? packed[group + 4] & 63 : packed[group + 4] >> 4 | (packed[group] >> 6) << 4;
    int shift = group % 2 * 4;
    *scale = half_at(block) * (float)s;
    *offset = half_at(block + 2) * (float)m;
    for (int i = 0; i < 32; i++) {
        codes[i] = (int8_t)(from[i] >> shift & 15);
    }
}

/* 256 weights in two halves of 8 groups of 16, each with a signed 8-bit scale: 64 bytes hold the
 * low 4 bits and 32 bytes the high 2 bits of 128 codes, 4 of them on a place. */
static void group_q6_k(float *scale, int8_t *codes, const unsigned char *block, size_t group)
{
    size_t half = group / 8, part = group % 8 / 2, place = group % 2 * 16;
    const unsigned char *low = block + 64 * half + part % 2 * 32 + place;
    const unsigned char *high = block + 128 + 32 * half + place;
    int shift = (int)(part / 2 * 4), high_shift = (int)(2 * part);
    *scale = half_at(block + 208) * (float)(int8_t)block[192 + group];
    for (int i = 0; i < 16; i++) {
        codes[i] = (int8_t)(((low[i] >> shift & 15) | (high[i] >> high_shift & 3) << 4) - 32);
    }
}

void quant_group(float *scale, float *offset, int8_t *codes, const void *row, TensorType type,
                 size_t group)
{
    size_t per_block = layouts[type].block / layouts[type].group;
    const unsigned char *block =
        (const unsigned char *)row + group / per_block * layouts[type].bytes;
    *offset = 0;
    if (type == TENSOR_Q8_0) {
        group_q8_0(scale, codes, block);
    } else if (type == TENSOR_Q4_0) {
        group_q4_0(scale, codes, block);
    } else if (type == TENSOR_Q5_0) {
        group_q5_0(scale, codes, block);
    } else if (type == TENSOR_Q4_K) {
        group_q4_k(scale, offset, codes, block, group % per_block);
    } else {
        group_q6_k(scale, codes, block, group % per_block);
    }
}

void quant_to_f32(float *out, const void *data, TensorType type, size_t n)
{
    size_t size = layouts[type].group;
    for (size_t group = 0; group < n / size; group++) {
        float scale, offset;
        int8_t codes[QUANT_GROUP_MAX];
        quant_group(&scale, &offset, codes, data, type, group);
        for (size_t i = 0; i < size; i++) {
            out[group * size + i] = scale * (float)codes[i] - offset;
        }
    }
}

size_t quant_find_nonfinite(const void *data, TensorType type, size_t n)
{
    const unsigned char *bytes = data;
    for (size_t i = 0; i < n; i += layouts[type].block, bytes += layouts[type].bytes) {
        for (int s = 0; s < layouts[type].n_scales; s++) {
            if ((bytes[layouts[type].scales[s] + 1] & 0x7c) == 0x7c) {
                return i;
            }
        }
    }
    return n;
}
