/* Sixteen float lanes on any CPU: one AVX-512 register, two AVX2 registers, or an array. Every
 * operation gives the same bits on all three (each lane is IEEE single, multiply-add is always
 * fused), so kernels written over it do too. Included only by the kernels_*.c files, each compiled
 * with its own -m flags. */
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#define LANES 16
#define UNROLL _Pragma("GCC unroll 16")
#define SIMD_INLINE static inline __attribute__((always_inline, unused))

/* IEEE half to single by integer arithmetic, for CPUs without F16C. */
SIMD_INLINE float half_to_float(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16, magnitude = half & 0x7fffu, bits;
    if (magnitude >= 0x7c00u) {
        bits = sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13);
    } else if (magnitude >= 0x400u) {
        bits = sign | ((magnitude << 13) + 0x38000000u);
    } else {
        float value = (float)magnitude * 0x1p-24f;
        memcpy(&bits, &value, 4);
        bits |= sign;
    }
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

#if defined(SIMD_AVX512)
#include <immintrin.h>
typedef __m512 V16;

SIMD_INLINE V16 v16_zero(void)
{
    return _mm512_setzero_ps();
}
SIMD_INLINE V16 v16_set(float a)
{
    return _mm512_set1_ps(a);
}
SIMD_INLINE V16 v16_load(const float *p)
{
    return _mm512_loadu_ps(p);
}
SIMD_INLINE void v16_store(float *p, V16 a)
{
    _mm512_storeu_ps(p, a);
}
SIMD_INLINE V16 v16_add(V16 a, V16 b)
{
    return _mm512_add_ps(a, b);
}
SIMD_INLINE V16 v16_sub(V16 a, V16 b)
{
    return _mm512_sub_ps(a, b);
}
SIMD_INLINE V16 v16_mul(V16 a, V16 b)
{
    return _mm512_mul_ps(a, b);
}
SIMD_INLINE V16 v16_div(V16 a, V16 b)
{
    return _mm512_div_ps(a, b);
}
SIMD_INLINE V16 v16_max(V16 a, V16 b)
{
    return _mm512_max_ps(a, b);
}
SIMD_INLINE V16 v16_min(V16 a, V16 b)
{
    return _mm512_min_ps(a, b);
}
SIMD_INLINE V16 v16_fma(V16 a, V16 b, V16 c)
{
    return _mm512_fmadd_ps(a, b, c);
}
SIMD_INLINE V16 v16_load_n(const float *p, int n, float fill)
{
    return _mm512_mask_loadu_ps(_mm512_set1_ps(fill), (__mmask16)((1u << n) - 1u), p);
}
SIMD_INLINE void v16_store_n(float *p, V16 a, int n)
{
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1u), a);
}
/* 32 bf16 packed as words (column j low half, column j + 16 high half). */
SIMD_INLINE void v16_load_bf16x2(V16 *low, V16 *high, const uint16_t *p)
{
    __m512i words = _mm512_loadu_si512(p);
    *low = _mm512_castsi512_ps(_mm512_slli_epi32(words, 16));
    *high = _mm512_castsi512_ps(_mm512_and_si512(words, _mm512_set1_epi32((int)0xffff0000u)));
}
SIMD_INLINE V16 v16_load_f16(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}
SIMD_INLINE V16 v16_load_i8(const int8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)p)));
}
/* The low (shift 0) or high (4) halves of bytes. */
SIMD_INLINE V16 v16_load_u4(const uint8_t *p, int shift)
{
    __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)p));
    bytes = _mm512_and_si512(_mm512_srl_epi32(bytes, _mm_cvtsi32_si128(shift)),
                             _mm512_set1_epi32(15));
    return _mm512_cvtepi32_ps(bytes);
}
/* 2^n for integral n in [-126, 127]. */
SIMD_INLINE V16 v16_power_of_two(V16 n)
{
    __m512i bits = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
    return _mm512_castsi512_ps(_mm512_slli_epi32(bits, 23));
}
SIMD_INLINE V16 v16_round(V16 a)
{
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
/* a < b ? x : y, lane by lane; false for NaN. */
SIMD_INLINE V16 v16_select_less(V16 a, V16 b, V16 x, V16 y)
{
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), y, x);
}
SIMD_INLINE void v16_transpose(V16 r[16])
{
    __m512 t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        __m512d a = _mm512_castps_pd(t[i]), b = _mm512_castps_pd(t[i + 1]);
        __m512d c = _mm512_castps_pd(t[i + 2]), d = _mm512_castps_pd(t[i + 3]);
        r[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, c));
        r[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, c));
        r[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(b, d));
        r[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(b, d));
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xdd);
    }
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd);
        r[i + 4] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 12] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0xdd);
    }
}

#elif defined(SIMD_AVX2)
#include <immintrin.h>
typedef struct {
    __m256 lo, hi;
} V16;

SIMD_INLINE V16 v16_pair(__m256 lo, __m256 hi)
{
    V16 a = {lo, hi};
    return a;
}
SIMD_INLINE V16 v16_set(float a)
{
    return v16_pair(_mm256_set1_ps(a), _mm256_set1_ps(a));
}
SIMD_INLINE V16 v16_zero(void)
{
    return v16_set(0.0f);
}
SIMD_INLINE V16 v16_load(const float *p)
{
    return v16_pair(_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8));
}
SIMD_INLINE void v16_store(float *p, V16 a)
{
    _mm256_storeu_ps(p, a.lo);
    _mm256_storeu_ps(p + 8, a.hi);
}
#define V16_LANEWISE(name, operation)                                                              \
    SIMD_INLINE V16 name(V16 a, V16 b)                                                             \
    {                                                                                              \
        return v16_pair(operation(a.lo, b.lo), operation(a.hi, b.hi));                             \
    }
V16_LANEWISE(v16_add, _mm256_add_ps)
V16_LANEWISE(v16_sub, _mm256_sub_ps)
V16_LANEWISE(v16_mul, _mm256_mul_ps)
V16_LANEWISE(v16_div, _mm256_div_ps)
V16_LANEWISE(v16_max, _mm256_max_ps)
V16_LANEWISE(v16_min, _mm256_min_ps)
#undef V16_LANEWISE
SIMD_INLINE V16 v16_fma(V16 a, V16 b, V16 c)
{
    return v16_pair(_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi));
}
/* n ones, then zeros. */
static const int32_t v16_masks[2 * LANES] = {-1, -1, -1, -1, -1, -1, -1, -1,
                                             -1, -1, -1, -1, -1, -1, -1, -1};
SIMD_INLINE __m256 v8_load_n(const float *p, const int32_t *mask, __m256 fill)
{
    __m256i m = _mm256_loadu_si256((const __m256i *)(const void *)mask);
    return _mm256_blendv_ps(fill, _mm256_maskload_ps(p, m), _mm256_castsi256_ps(m));
}
SIMD_INLINE V16 v16_load_n(const float *p, int n, float fill)
{
    const int32_t *mask = v16_masks + LANES - n;
    __m256 f = _mm256_set1_ps(fill);
    return v16_pair(v8_load_n(p, mask, f), v8_load_n(p + 8, mask + 8, f));
}
SIMD_INLINE void v16_store_n(float *p, V16 a, int n)
{
    if (n >= 8) {
        _mm256_storeu_ps(p, a.lo);
        p += 8;
        a.lo = a.hi;
        n -= 8;
    }
    float lanes[8];
    _mm256_storeu_ps(lanes, a.lo);
    memcpy(p, lanes, (size_t)n * sizeof *p);
}
SIMD_INLINE void v16_load_bf16x2(V16 *low, V16 *high, const uint16_t *p)
{
    __m256i a = _mm256_loadu_si256((const __m256i *)(const void *)p);
    __m256i b = _mm256_loadu_si256((const __m256i *)(const void *)(p + 16));
    __m256i mask = _mm256_set1_epi32((int)0xffff0000u);
    *low = v16_pair(_mm256_castsi256_ps(_mm256_slli_epi32(a, 16)),
                    _mm256_castsi256_ps(_mm256_slli_epi32(b, 16)));
    *high = v16_pair(_mm256_castsi256_ps(_mm256_and_si256(a, mask)),
                     _mm256_castsi256_ps(_mm256_and_si256(b, mask)));
}
SIMD_INLINE V16 v16_load_f16(const uint16_t *p)
{
    return v16_pair(_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p)),
                    _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(p + 8))));
}
SIMD_INLINE V16 v16_load_i8(const int8_t *p)
{
    __m256i low = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)p));
    __m256i high = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)(p + 8)));
    return v16_pair(_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high));
}
SIMD_INLINE V16 v16_load_u4(const uint8_t *p, int shift)
{
    __m128i count = _mm_cvtsi32_si128(shift);
    __m256i mask = _mm256_set1_epi32(15);
    __m256i low = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)p));
    __m256i high = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const void *)(p + 8)));
    low = _mm256_and_si256(_mm256_srl_epi32(low, count), mask);
    high = _mm256_and_si256(_mm256_srl_epi32(high, count), mask);
    return v16_pair(_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high));
}
SIMD_INLINE __m256 v8_power_of_two(__m256 n)
{
    __m256i bits = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(bits, 23));
}
SIMD_INLINE V16 v16_power_of_two(V16 n)
{
    return v16_pair(v8_power_of_two(n.lo), v8_power_of_two(n.hi));
}
SIMD_INLINE V16 v16_round(V16 a)
{
    return v16_pair(_mm256_round_ps(a.lo, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC),
                    _mm256_round_ps(a.hi, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
SIMD_INLINE V16 v16_select_less(V16 a, V16 b, V16 x, V16 y)
{
    return v16_pair(_mm256_blendv_ps(y.lo, x.lo, _mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ)),
                    _mm256_blendv_ps(y.hi, x.hi, _mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ)));
}
SIMD_INLINE void v8_transpose(__m256 r[8])
{
    __m256 t[8];
    UNROLL for (int i = 0; i < 8; i += 4)
    {
        __m256d a = _mm256_castps_pd(_mm256_unpacklo_ps(r[i], r[i + 1]));
        __m256d b = _mm256_castps_pd(_mm256_unpackhi_ps(r[i], r[i + 1]));
        __m256d c = _mm256_castps_pd(_mm256_unpacklo_ps(r[i + 2], r[i + 3]));
        __m256d d = _mm256_castps_pd(_mm256_unpackhi_ps(r[i + 2], r[i + 3]));
        t[i] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, c));
        t[i + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, c));
        t[i + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(b, d));
        t[i + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(b, d));
    }
    UNROLL for (int i = 0; i < 4; i++)
    {
        r[i] = _mm256_permute2f128_ps(t[i], t[i + 4], 0x20);
        r[i + 4] = _mm256_permute2f128_ps(t[i], t[i + 4], 0x31);
    }
}
SIMD_INLINE void v16_transpose(V16 r[16])
{
    __m256 quarter[2][2][8]; /* [lanes][rows]: each becomes that of [rows][lanes] */
    UNROLL for (int i = 0; i < 8; i++)
    {
        quarter[0][0][i] = r[i].lo;
        quarter[1][0][i] = r[i].hi;
        quarter[0][1][i] = r[i + 8].lo;
        quarter[1][1][i] = r[i + 8].hi;
    }
    UNROLL for (int i = 0; i < 4; i++)
    {
        v8_transpose(quarter[i / 2][i % 2]);
    }
    UNROLL for (int i = 0; i < 16; i++)
    {
        r[i] = v16_pair(quarter[i / 8][0][i % 8], quarter[i / 8][1][i % 8]);
    }
}
/* out[i][rows] = x[r][i] for i < SQUARE, rows <= SQUARE; writes up to LANES floats past the end. */
#define SQUARE 8
SIMD_INLINE void turn_square(float *out, const float *x, size_t ldx, int rows)
{
    __m256 r[8];
    UNROLL for (int i = 0; i < 8; i++)
    {
        r[i] = i < rows ? _mm256_loadu_ps(x + (size_t)i * ldx) : _mm256_setzero_ps();
    }
    v8_transpose(r);
    UNROLL for (int i = 0; i < 8; i++)
    {
        _mm256_storeu_ps(out + i * rows, r[i]);
    }
}

#else /* any CPU */
typedef struct {
    float lane[LANES];
} V16;

#define V16_LANEWISE(expression)                                                                   \
    V16 r;                                                                                         \
    for (int i = 0; i < LANES; i++) {                                                              \
        r.lane[i] = (expression);                                                                  \
    }                                                                                              \
    return r;
SIMD_INLINE V16 v16_set(float a){V16_LANEWISE(a)} SIMD_INLINE V16 v16_zero(void)
{
    return v16_set(0.0f);
}
SIMD_INLINE V16 v16_load(const float *p){V16_LANEWISE(p[i])} SIMD_INLINE
    void v16_store(float *p, V16 a)
{
    memcpy(p, a.lane, sizeof a.lane);
}
SIMD_INLINE V16 v16_add(V16 a, V16 b){V16_LANEWISE(a.lane[i] + b.lane[i])} SIMD_INLINE V16
    v16_sub(V16 a, V16 b){V16_LANEWISE(a.lane[i] - b.lane[i])} SIMD_INLINE V16
    v16_mul(V16 a, V16 b){V16_LANEWISE(a.lane[i] * b.lane[i])} SIMD_INLINE V16
    v16_div(V16 a, V16 b){V16_LANEWISE(a.lane[i] / b.lane[i])}
/* As x86 does it: the second operand when either is NaN. */
SIMD_INLINE V16 v16_max(V16 a, V16 b){
    V16_LANEWISE(a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i])} SIMD_INLINE V16
    v16_min(V16 a,
            V16 b){V16_LANEWISE(a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i])} SIMD_INLINE V16
    v16_fma(V16 a, V16 b,
            V16 c){V16_LANEWISE(fmaf(a.lane[i], b.lane[i], c.lane[i]))} SIMD_INLINE V16
    v16_load_n(const float *p, int n, float fill){V16_LANEWISE(i < n ? p[i] : fill)} SIMD_INLINE
    void v16_store_n(float *p, V16 a, int n)
{
    memcpy(p, a.lane, (size_t)n * sizeof *p);
}
SIMD_INLINE void v16_load_bf16x2(V16 *low, V16 *high, const uint16_t *p)
{
    for (int i = 0; i < LANES; i++) {
        uint32_t even = (uint32_t)p[2 * i] << 16, odd = (uint32_t)p[2 * i + 1] << 16;
        memcpy(&low->lane[i], &even, 4);
        memcpy(&high->lane[i], &odd, 4);
    }
}
SIMD_INLINE V16 v16_load_f16(const uint16_t *p){V16_LANEWISE(half_to_float(p[i]))} SIMD_INLINE V16
    v16_load_i8(const int8_t *p){V16_LANEWISE((float)p[i])} SIMD_INLINE V16
    v16_load_u4(const uint8_t *p, int shift){V16_LANEWISE((float)(p[i] >> shift & 15))} SIMD_INLINE
    V16 v16_power_of_two(V16 n)
{
    V16 r;
    for (int i = 0; i < LANES; i++) {
        uint32_t bits = (uint32_t)((int32_t)n.lane[i] + 127) << 23;
        memcpy(&r.lane[i], &bits, 4);
    }
    return r;
}
SIMD_INLINE V16 v16_round(V16 a){V16_LANEWISE(rintf(a.lane[i]))} SIMD_INLINE V16
    v16_select_less(V16 a, V16 b, V16 x,
                    V16 y){V16_LANEWISE(a.lane[i] < b.lane[i] ? x.lane[i] : y.lane[i])}
#undef V16_LANEWISE
#define V16_TRANSPOSE_BY_MEMORY
#endif

#ifdef V16_TRANSPOSE_BY_MEMORY
SIMD_INLINE void v16_transpose(V16 r[16])
{
    float square[LANES][LANES];
    for (int i = 0; i < LANES; i++) {
        float row[LANES];
        v16_store(row, r[i]);
        for (int j = 0; j < LANES; j++) {
            square[j][i] = row[j];
        }
    }
    for (int i = 0; i < LANES; i++) {
        r[i] = v16_load(square[i]);
    }
}
#endif

#ifndef SQUARE
#define SQUARE LANES
SIMD_INLINE void turn_square(float *out, const float *x, size_t ldx, int rows)
{
    V16 r[LANES];
    for (int i = 0; i < LANES; i++) {
        r[i] = i < rows ? v16_load(x + (size_t)i * ldx) : v16_zero();
    }
    v16_transpose(r);
    for (int i = 0; i < LANES; i++) {
        v16_store(out + i * rows, r[i]);
    }
}
#endif

/* The sum of all lanes by one fixed tree. */
SIMD_INLINE float v16_sum(V16 a)
{
    float lane[LANES];
    v16_store(lane, a);
    for (int width = LANES / 2; width > 0; width /= 2) {
        for (int i = 0; i < width; i++) {
            lane[i] += lane[i + width];
        }
    }
    return lane[0];
}

SIMD_INLINE float v16_largest(V16 a)
{
    float lane[LANES];
    v16_store(lane, a);
    float largest = lane[0];
    for (int i = 1; i < LANES; i++) {
        largest = lane[i] > largest ? lane[i] : largest;
    }
    return largest;
}

/* exp to 2 ulp; 0 below -87.3 (no denormals), clamped above 88.3; NaN stays NaN.
 * Range reduction by ln 2 in two parts, then a degree-6 polynomial (Cephes expf, S. Moshier). */
SIMD_INLINE V16 v16_exp(V16 x)
{
    V16 lowest = v16_set(-87.33654f);
    V16 clamped = v16_min(v16_set(88.3f), x); /* second operand: NaN passes */
    clamped = v16_max(lowest, clamped);
    V16 n = v16_round(v16_mul(clamped, v16_set(1.44269504088896341f)));
    V16 r = v16_fma(n, v16_set(-0.693359375f), clamped);
    r = v16_fma(n, v16_set(2.12194440e-4f), r);
    V16 p = v16_set(1.9875691500e-4f);
    p = v16_fma(p, r, v16_set(1.3981999507e-3f));
    p = v16_fma(p, r, v16_set(8.3334519073e-3f));
    p = v16_fma(p, r, v16_set(4.1665795894e-2f));
    p = v16_fma(p, r, v16_set(1.6666665459e-1f));
    p = v16_fma(p, r, v16_set(5.0000001201e-1f));
    p = v16_fma(p, v16_mul(r, r), v16_add(r, v16_set(1.0f)));
    V16 result = v16_mul(p, v16_power_of_two(n));
    return v16_select_less(x, lowest, v16_zero(), result);
}
