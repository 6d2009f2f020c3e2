/* ggml's quantised weights, inside core: of the types Q8_0, Q4_0, Q4_K, Q6_K and Q5_0 alone. Weights come
 * in groups that share a scale; w = scale * code - offset, exactly what ggml's formulae give: the
 * product is exact in f32. n: a multiple of the type's block. */
#pragma once
#include "core/safetensors.h"

enum { QUANT_GROUP_MAX = 32 };

/* Elements of a block, and its bytes. */
size_t quant_block(TensorType type, size_t *n_bytes);
/* Weights of a group: it divides the block. */
size_t quant_group_size(TensorType type);
/* Group `group` of a row: codes (group_size). offset is 0 but for Q4_K. Codes of Q4_0 and Q4_K are
 * -8 .. 7 and 0 .. 15. */
void quant_group(float *scale, float *offset, int8_t *codes, const void *row, TensorType type,
                 size_t group);
/* out: (n) */
void quant_to_f32(float *out, const void *data, TensorType type, size_t n);
/* The first element of the first block with a scale that is infinite or no number, or n. */
size_t quant_find_nonfinite(const void *data, TensorType type, size_t n);
