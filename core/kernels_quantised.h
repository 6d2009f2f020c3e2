/* Quantised panels, as core/matrix packs them (core/kernels.h). Included by kernels_impl.h alone. */
#pragma once
#include "core/kernels.h"
#include "core/simd.h"

#define PANEL 32

/* Reduction steps of a group of a quantised panel, and its bytes. */
SIMD_INLINE size_t group_steps(TensorType type)
{
    return type == TENSOR_Q6_K ? 16 : 32;
}

SIMD_INLINE size_t group_bytes(TensorType type)
{
    size_t halves = type == TENSOR_Q4_0 || type == TENSOR_Q4_K;
    size_t floats = type == TENSOR_Q4_K ? 2 : 1;
    return floats * PANEL * sizeof(float) + group_steps(type) * PANEL / (1 + halves);
}

/* One reduction step of a quantised panel: every product is exact. */
SIMD_INLINE void load_quantised(V16 column[2], const void *panel, TensorType type, size_t k)
{
    size_t step = k % group_steps(type);
    const float *scales = (const void *)((const char *)panel + k / group_steps(type) * group_bytes(type));
    const float *offsets = scales + PANEL;
    const uint8_t *codes = (const void *)(type == TENSOR_Q4_K ? offsets + PANEL : offsets);
    UNROLL for (int half = 0; half < 2; half++)
    {
        size_t lane = (size_t)half * LANES;
        V16 code = type == TENSOR_Q4_0 || type == TENSOR_Q4_K
                       ? v16_load_u4(codes + step / 2 * PANEL + lane, (int)(step % 2 * 4))
                       : v16_load_i8((const int8_t *)codes + step * PANEL + lane);
        if (type == TENSOR_Q4_0) {
            code = v16_sub(code, v16_set(8));
        }
        column[half] = v16_mul(v16_load(scales + lane), code);
        if (type == TENSOR_Q4_K) {
            column[half] = v16_sub(column[half], v16_load(offsets + lane));
        }
    }
}
