/* The inner loops, written over core/simd.h; included by kernels_avx512.c, kernels_avx2.c,
 * kernels_portable.c after they define KERNELS, KERNELS_NAME, TILE_ROWS and TILE_VECTORS. Each
 * output element of a product is one chain of fused multiply-adds in order of k: the law. */
#include "core/kernels.h"
#include "core/kernels_attention.h"
#include "core/kernels_quantised.h"
#include "core/simd.h"

#define STRIP (TILE_VECTORS * LANES)                                /* columns of a tile */
#define SECOND_VECTOR (TILE_VECTORS == 2 ? LANES : K_BLOCK * LANES) /* of a panel in scratch */
#define K_BLOCK 256      /* reduction steps whose weights sit in scratch (32 KB) */
#define K_OUTER 1024     /* and those of packed x */
#define ROW_BLOCK 144    /* rows of x that stay in the second-level cache meanwhile */
#define FEW_FLOATS 12288 /* of x, when the weights stream by once */
#define FEW_STEPS 128    /* of a panel, when it is read vector by vector */

/* ---- tiles: `rows` x (vectors * 16) accumulators in registers ---- */

SIMD_INLINE void tile_load(V16 (*acc)[2], const float *y, size_t ldy, int rows, int vectors,
                           int valid)
{
    UNROLL for (int r = 0; r < rows; r++)
    {
        UNROLL for (int v = 0; v < vectors; v++)
        {
            int n = valid - v * LANES;
            const float *p = y + r * ldy + v * LANES;
            acc[r][v] = n >= LANES ? v16_load(p) : n > 0 ? v16_load_n(p, n, 0.0f) : v16_zero();
        }
    }
}

SIMD_INLINE void tile_store(float *y, size_t ldy, V16 (*acc)[2], int rows, int vectors, int valid,
                            const float *bias)
{
    UNROLL for (int r = 0; r < rows; r++)
    {
        UNROLL for (int v = 0; v < vectors; v++)
        {
            int n = valid - v * LANES;
            float *p = y + r * ldy + v * LANES;
            if (n >= LANES) {
                v16_store(p, bias ? v16_add(acc[r][v], v16_load(bias + v * LANES)) : acc[r][v]);
            } else if (n > 0) {
                V16 b = bias ? v16_load_n(bias + v * LANES, n, 0.0f) : v16_zero();
                v16_store_n(p, bias ? v16_add(acc[r][v], b) : acc[r][v], n);
            }
        }
    }
}

/* One tile's rows of x turned round, so that a reduction step reads them side by side: out[k][rows]
 * = x[r][k]. Writes up to LANES floats past the end. */
SIMD_INLINE void pack_rows(float *out, const float *x, size_t ldx, int rows, int n_k)
{
    int k = 0;
    for (; k + SQUARE <= n_k; k += SQUARE) {
        turn_square(out + (size_t)k * (size_t)rows, x + k, ldx, rows);
    }
    for (; k < n_k; k++) {
        for (int r = 0; r < rows; r++) {
            out[(size_t)k * (size_t)rows + r] = x[(size_t)r * ldx + k];
        }
    }
}

/* x: packed rows. w: f32 columns, one row of STRIP floats per reduction step. */
SIMD_INLINE void tile_f32(float *y, size_t ldy, const float *x, const float *w, int n_k, int rows,
                          int fresh, int valid, const float *bias)
{
    V16 acc[TILE_ROWS][2];
    if (fresh) {
        UNROLL for (int r = 0; r < rows; r++)
        {
            UNROLL for (int v = 0; v < TILE_VECTORS; v++)
            {
                acc[r][v] = v16_zero();
            }
        }
    } else {
        tile_load(acc, y, ldy, rows, TILE_VECTORS, valid);
    }
    for (int k = 0; k < n_k; k++) {
        V16 column[2];
        UNROLL for (int v = 0; v < TILE_VECTORS; v++)
        {
            column[v] = v16_load(w + (size_t)k * STRIP + v * LANES);
        }
        UNROLL for (int r = 0; r < rows; r++)
        {
            V16 a = v16_set(x[(size_t)k * (size_t)rows + r]);
            UNROLL for (int v = 0; v < TILE_VECTORS; v++)
            {
                acc[r][v] = v16_fma(a, column[v], acc[r][v]);
            }
        }
    }
    tile_store(y, ldy, acc, rows, TILE_VECTORS, valid, bias);
}

SIMD_INLINE size_t panel_bytes(const PackedMatrix *w)
{
    size_t n_in = (size_t)w->n_in;
    return w->type == TENSOR_F32    ? n_in * PANEL * 4
           : w->type <= TENSOR_BF16 ? n_in * PANEL * 2
                                    : n_in / group_steps(w->type) * group_bytes(w->type);
}

/* Widen one reduction step of a packed panel. */
SIMD_INLINE void load_packed(V16 column[2], const void *panel, TensorType type, size_t k)
{
    if (type == TENSOR_BF16) {
        v16_load_bf16x2(&column[0], &column[1], (const uint16_t *)panel + k * PANEL);
    } else if (type == TENSOR_F16) {
        column[0] = v16_load_f16((const uint16_t *)panel + k * PANEL);
        column[1] = v16_load_f16((const uint16_t *)panel + k * PANEL + LANES);
    } else if (type > TENSOR_BF16) {
        load_quantised(column, panel, type, k);
    } else {
        column[0] = v16_load((const float *)panel + k * PANEL);
        column[1] = v16_load((const float *)panel + k * PANEL + LANES);
    }
}

/* LOOP with the type as a constant: what depends on it is decided before the loop. */
#define BY_TYPE(type, LOOP)                                                                        \
    switch (type) {                                                                                \
    case TENSOR_F32:                                                                               \
        LOOP(TENSOR_F32) break;                                                                    \
    case TENSOR_F16:                                                                               \
        LOOP(TENSOR_F16) break;                                                                    \
    case TENSOR_BF16:                                                                              \
        LOOP(TENSOR_BF16) break;                                                                   \
    case TENSOR_Q8_0:                                                                              \
        LOOP(TENSOR_Q8_0) break;                                                                   \
    case TENSOR_Q4_0:                                                                              \
        LOOP(TENSOR_Q4_0) break;                                                                   \
    case TENSOR_Q4_K:                                                                              \
        LOOP(TENSOR_Q4_K) break;                                                                   \
    default:                                                                                       \
        LOOP(TENSOR_Q6_K)                                                                          \
    }

/* Few rows: `panels` panels side by side, straight from the packed weights, of each the vectors
 * first .. last-1. x: packed rows of steps k0 .. k0 + n_k. */
SIMD_INLINE void tile_packed(float *y, size_t ldy, const float *x, const PackedMatrix *w, int k0,
                             int n_k, const float *bias, int rows, int panel, int panels, int first,
                             int last)
{
    size_t n_panel = panel_bytes(w);
    const char *base = (const char *)w->packed + (size_t)panel * n_panel;
    int column0 = panel * PANEL + first * LANES;
    size_t line = LANES * (w->type == TENSOR_F32 ? 4 : 2); /* half a step of a panel */
    const char *next = base + (size_t)(2 * (k0 + n_k) + first * n_k) * line;
    V16 acc[4][TILE_ROWS][2];
    UNROLL for (int p = 0; p < panels; p++)
    {
        if (k0 > 0) {
            int column = column0 + p * PANEL;
            tile_load(acc[p], y + column, ldy, rows, last - first, w->n_out - column);
        } else {
            UNROLL for (int r = 0; r < rows; r++)
            {
                acc[p][r][0] = acc[p][r][1] = v16_zero();
            }
        }
    }
#define REDUCE(TYPE)                                                                               \
    for (int k = 0; k < n_k; k++) {                                                                \
        V16 column[4][2];                                                                          \
        UNROLL for (int p = 0; p < panels; p++)                                                    \
        {                                                                                          \
            load_packed(column[p], base + (size_t)p * n_panel, TYPE, (size_t)(k0 + k));        \
        }                                                                                          \
        if (last - first == 1) { /* its share of the next steps, or of nothing at the end */       \
            __builtin_prefetch(next + (size_t)k * line);                                           \
        }                                                                                          \
        UNROLL for (int r = 0; r < rows; r++)                                                      \
        {                                                                                          \
            V16 a = v16_set(x[(size_t)k * (size_t)rows + r]);                                      \
            UNROLL for (int p = 0; p < panels; p++)                                                \
            {                                                                                      \
                UNROLL for (int v = first; v < last; v++)                                          \
                {                                                                                  \
                    acc[p][r][v - first] = v16_fma(a, column[p][v], acc[p][r][v - first]);         \
                }                                                                                  \
            }                                                                                      \
        }                                                                                          \
    }
    BY_TYPE(w->type, REDUCE)
#undef REDUCE
    UNROLL for (int p = 0; p < panels; p++)
    {
        int column = column0 + p * PANEL;
        tile_store(y + column, ldy, acc[p], rows, last - first, w->n_out - column,
                   bias ? bias + column : NULL);
    }
}

#if TILE_ROWS >= 12
#define FOR_EACH_TILE_SIZE(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12)
#elif TILE_ROWS >= 6
#define FOR_EACH_TILE_SIZE(X) X(1) X(2) X(3) X(4) X(5) X(6)
#else
#define FOR_EACH_TILE_SIZE(X) X(1) X(2) X(3) X(4)
#endif

/* One function per number of rows, so that the accumulators stay in registers. */
#define DEFINE_TILE(R)                                                                             \
    static __attribute__((noinline)) void tile_rows_##R(float *y, size_t ldy, const float *x,      \
                                                        const float *w, int n_k, int fresh,        \
                                                        int valid, const float *bias)              \
    {                                                                                              \
        tile_f32(y, ldy, x, w, n_k, R, fresh, valid, bias);                                        \
    }
FOR_EACH_TILE_SIZE(DEFINE_TILE)
typedef void (*TileFunction)(float *, size_t, const float *, const float *, int, int, int,
                             const float *);
#define TILE_ENTRY(R) tile_rows_##R,
static const TileFunction tile_functions[] = {NULL, FOR_EACH_TILE_SIZE(TILE_ENTRY)};

/* As many panels, or vectors of one, as there are registers for. */
#if TILE_VECTORS == 2
#define PACKED_WIDE(R) ((R) == 1 ? 4 : (R) <= 5 ? 2 : 1)
#define BY_VECTORS(R) 0
#else
#define PACKED_WIDE(R) ((R) == 1 ? 4 : (R) <= 3 ? 2 : 1)
#define BY_VECTORS(R) ((R) > 3)
#endif
#define DEFINE_PACKED(R)                                                                           \
    static __attribute__((noinline)) void packed_rows_##R(                                         \
        float *y, size_t ldy, const float *x, const PackedMatrix *w, int k0, int n_k,              \
        const float *bias, int panel, int last_panel)                                              \
    {                                                                                              \
        for (; panel + PACKED_WIDE(R) <= last_panel; panel += PACKED_WIDE(R)) {                    \
            if (BY_VECTORS(R)) {                                                                   \
                tile_packed(y, ldy, x, w, k0, n_k, bias, R, panel, 1, 0, 1);                       \
                tile_packed(y, ldy, x, w, k0, n_k, bias, R, panel, 1, 1, 2);                       \
            } else {                                                                               \
                tile_packed(y, ldy, x, w, k0, n_k, bias, R, panel, PACKED_WIDE(R), 0, 2);          \
            }                                                                                      \
        }                                                                                          \
        for (; panel < last_panel; panel++) {                                                      \
            tile_packed(y, ldy, x, w, k0, n_k, bias, R, panel, 1, 0, 2);                           \
        }                                                                                          \
    }
FOR_EACH_TILE_SIZE(DEFINE_PACKED)
typedef void (*PackedFunction)(float *, size_t, const float *, const PackedMatrix *, int, int,
                               const float *, int, int);
#define PACKED_ENTRY(R) packed_rows_##R,
static const PackedFunction packed_functions[] = {NULL, FOR_EACH_TILE_SIZE(PACKED_ENTRY)};

/* Rows of tile i when `rows` are spread evenly over tiles of at most TILE_ROWS. */
static int tile_start(int rows, int n_tiles, int i)
{
    return (int)((long)rows * i / n_tiles);
}

/* All tiles of `rows` rows, one after the other, each packed. */
static void pack_tiles(float *out, const float *x, size_t ldx, int rows, int n_tiles, int n_k)
{
    for (int i = 0; i < n_tiles; i++) {
        int row = tile_start(rows, n_tiles, i), n = tile_start(rows, n_tiles, i + 1) - row;
        pack_rows(out + (size_t)row * (size_t)n_k, x + row * ldx, ldx, n, n_k);
    }
}

static void matmul_few(float *y, size_t ldy, const float *x, size_t ldx, const PackedMatrix *w,
                       const float *bias, int rows, int first_panel, int last_panel)
{
    float packed[FEW_FLOATS + LANES];
    int n_tiles = (rows + TILE_ROWS - 1) / TILE_ROWS, k_block = FEW_FLOATS / rows;
    /* What is read more than once stays in the cache meanwhile: a panel from one tile of rows to
     * the next, a part of it from one vector to the next. */
    int parts = BY_VECTORS(rows), step = n_tiles > 1 || parts ? 1 : last_panel - first_panel;
    int part = parts ? FEW_STEPS : k_block;
    for (int k0 = 0; k0 < w->n_in; k0 += k_block) {
        int n_k = w->n_in - k0 < k_block ? w->n_in - k0 : k_block;
        pack_tiles(packed, x + k0, ldx, rows, n_tiles, n_k);
        for (int panel = first_panel; panel < last_panel; panel += step) {
            for (int k = 0; k < n_k; k += part) {
                int n = n_k - k < part ? n_k - k : part;
                const float *bias_now = k0 + k + n == w->n_in ? bias : NULL;
                for (int i = 0; i < n_tiles; i++) {
                    int row = tile_start(rows, n_tiles, i);
                    int n_rows = tile_start(rows, n_tiles, i + 1) - row;
                    const float *x_tile = packed + (size_t)row * (size_t)n_k;
                    packed_functions[n_rows](y + row * ldy, ldy, x_tile + (size_t)k * n_rows, w,
                                             k0 + k, n, bias_now, panel, panel + step);
                }
            }
        }
    }
}

/* The f32 columns of reduction steps k0 .. k0 + n_k of a panel, strip after strip: its own, or in
 * scratch. */
SIMD_INLINE const float *widen(float *scratch, const char *weights, TensorType type, int k0,
                               int n_k)
{
    if (type == TENSOR_F32 && TILE_VECTORS == 2) {
        return (const float *)(const void *)weights + (size_t)k0 * PANEL;
    }
#define WIDEN(TYPE)                                                                                \
    for (int k = 0; k < n_k; k++) {                                                                \
        V16 column[2];                                                                             \
        load_packed(column, weights, TYPE, (size_t)(k0 + k));                                      \
        v16_store(scratch + (size_t)k * STRIP, column[0]);                                         \
        v16_store(scratch + (size_t)k * STRIP + SECOND_VECTOR, column[1]);                         \
    }
    BY_TYPE(type, WIDEN)
#undef WIDEN
    return scratch;
}

/* All tiles of a block of rows against n_k reduction steps of 32 columns. */
static void run_tiles(float *y, size_t ldy, const float *x, const float *columns, int n_k, int rows,
                      int n_tiles, int fresh, int valid, const float *bias)
{
    for (int v = 0; v < PANEL / LANES; v += TILE_VECTORS) {
        for (int i = 0; i < n_tiles; i++) {
            int row = tile_start(rows, n_tiles, i), n = tile_start(rows, n_tiles, i + 1) - row;
            tile_functions[n](y + row * ldy + v * LANES, ldy, x + (size_t)row * (size_t)n_k,
                              columns + v * K_BLOCK * LANES, n_k, fresh, valid - v * LANES,
                              bias ? bias + v * LANES : NULL);
        }
    }
}

/* Rows and reduction steps in blocks whose packed x stays in the second-level cache; a panel goes
 * through all steps of a block before the next one, so that its part of y stays there too. */
static void matmul_many(float *y, size_t ldy, const float *x, size_t ldx, const PackedMatrix *w,
                        const float *bias, int rows, int first_panel, int last_panel,
                        float *scratch)
{
    size_t n_panel = panel_bytes(w);
    float *packed = scratch + K_BLOCK * PANEL;
    for (int row0 = 0; row0 < rows; row0 += ROW_BLOCK) {
        int block = rows - row0 < ROW_BLOCK ? rows - row0 : ROW_BLOCK;
        int n_tiles = (block + TILE_ROWS - 1) / TILE_ROWS;
        for (int outer = 0; outer < w->n_in; outer += K_OUTER) {
            int end = w->n_in - outer < K_OUTER ? w->n_in : outer + K_OUTER;
            for (int k0 = outer; k0 < end; k0 += K_BLOCK) {
                int n_k = end - k0 < K_BLOCK ? end - k0 : K_BLOCK;
                pack_tiles(packed + (size_t)(k0 - outer) * (size_t)block, x + row0 * ldx + k0, ldx,
                           block, n_tiles, n_k);
            }
            for (int panel = first_panel; panel < last_panel; panel++) {
                const char *weights = (const char *)w->packed + (size_t)panel * n_panel;
                int column0 = panel * PANEL;
                for (int k0 = outer; k0 < end; k0 += K_BLOCK) {
                    int n_k = end - k0 < K_BLOCK ? end - k0 : K_BLOCK, final = k0 + n_k == w->n_in;
                    const float *columns = widen(scratch, weights, w->type, k0, n_k);
                    run_tiles(y + row0 * ldy + column0, ldy,
                              packed + (size_t)(k0 - outer) * (size_t)block, columns, n_k, block,
                              n_tiles, k0 == 0, w->n_out - column0,
                              bias && final ? bias + column0 : NULL);
                }
            }
        }
    }
}

/* scratch = W[n0 + n][32 * block ...] for n < n_n, strip after strip: turns packed panels round,
 * 16 x 16 at a time. */
static void unpack_transposed(float *scratch, const PackedMatrix *w, int block, int n0, int n_n)
{
    size_t n_panel = panel_bytes(w);
    for (int n = 0; n < n_n; n += PANEL) {
        const char *panel = (const char *)w->packed + (size_t)((n0 + n) / PANEL) * n_panel;
        for (int half = 0; half < 2; half++) {
            V16 low[LANES], high[LANES]; /* rows are k, lanes are n */
            int k0 = block * PANEL + half * LANES;
            for (int k = 0; k < LANES; k++) {
                V16 column[2] = {v16_zero(), v16_zero()};
                if (k0 + k < w->n_in) {
                    load_packed(column, panel, w->type, (size_t)(k0 + k));
                }
                low[k] = column[0];
                high[k] = column[1];
            }
            v16_transpose(low);
            v16_transpose(high);
            for (int j = 0; j < LANES; j++) {
                float *out = scratch + (size_t)(n + j) * STRIP + half * SECOND_VECTOR;
                v16_store(out, low[j]);
                v16_store(out + LANES * STRIP, high[j]);
            }
        }
    }
}

static void matmul_transposed(float *dx, size_t ldx, const float *dy, size_t ldy,
                              const PackedMatrix *w, int rows, int accumulate, int first_block,
                              int last_block, float *scratch)
{
    float *packed = scratch + K_BLOCK * PANEL;
    for (int row0 = 0; row0 < rows; row0 += ROW_BLOCK) {
        int block_rows = rows - row0 < ROW_BLOCK ? rows - row0 : ROW_BLOCK;
        int n_tiles = (block_rows + TILE_ROWS - 1) / TILE_ROWS;
        for (int outer = 0; outer < w->n_out; outer += K_OUTER) {
            int end = w->n_out - outer < K_OUTER ? w->n_out : outer + K_OUTER;
            for (int n0 = outer; n0 < end; n0 += K_BLOCK) {
                int n_n = end - n0 < K_BLOCK ? end - n0 : K_BLOCK;
                pack_tiles(packed + (size_t)(n0 - outer) * (size_t)block_rows, dy + row0 * ldy + n0,
                           ldy, block_rows, n_tiles, n_n);
            }
            for (int block = first_block; block < last_block; block++) {
                int column0 = block * PANEL;
                for (int n0 = outer; n0 < end; n0 += K_BLOCK) {
                    int n_n = end - n0 < K_BLOCK ? end - n0 : K_BLOCK;
                    unpack_transposed(scratch, w, block, n0, n_n);
                    run_tiles(dx + row0 * ldx + column0, ldx,
                              packed + (size_t)(n0 - outer) * (size_t)block_rows, scratch, n_n,
                              block_rows, n_tiles, n0 == 0 && !accumulate, w->n_in - column0, NULL);
                }
            }
        }
    }
}

/* ---- rows ---- */

/* for (i = 0; i < n; i += 16) over full vectors, then the tail with m lanes; padding lanes read
 * `fill`. */
#define FOR_VECTORS(n)                                                                             \
    for (int i = 0, m = 0; i < (n) && (m = (n)-i < LANES ? (n)-i : LANES); i += LANES)
SIMD_INLINE V16 load_lanes(const float *p, int m)
{
    return m == LANES ? v16_load(p) : v16_load_n(p, m, 0.0f);
}
SIMD_INLINE void store_lanes(float *p, V16 a, int m)
{
    if (m == LANES) {
        v16_store(p, a);
    } else {
        v16_store_n(p, a, m);
    }
}

static float reciprocal_rms(const float *x, int n, float eps)
{
    V16 squares = v16_zero();
    FOR_VECTORS(n)
    {
        V16 a = load_lanes(x + i, m);
        squares = v16_fma(a, a, squares);
    }
    return 1.0f / sqrtf(v16_sum(squares) / (float)n + eps);
}

static float rmsnorm(float *y, const float *x, const float *g, int n, float eps)
{
    float rstd = reciprocal_rms(x, n, eps);
    V16 scale = v16_set(rstd);
    FOR_VECTORS(n)
    {
        store_lanes(y + i, v16_mul(load_lanes(g + i, m), v16_mul(load_lanes(x + i, m), scale)), m);
    }
    return rstd;
}

static void rmsnorm_backward(float *dx, double *dg, const float *dy, const float *x, const float *g,
                             int n, float eps)
{
    float rstd = reciprocal_rms(x, n, eps);
    V16 dots = v16_zero();
    FOR_VECTORS(n)
    {
        V16 weighted = v16_mul(load_lanes(dy + i, m), load_lanes(g + i, m));
        dots = v16_fma(weighted, load_lanes(x + i, m), dots);
    }
    float mean = v16_sum(dots) / (float)n;
    V16 scale = v16_set(rstd), pull = v16_set(-rstd * rstd * rstd * mean);
    FOR_VECTORS(n)
    {
        V16 weighted = v16_mul(load_lanes(dy + i, m), load_lanes(g + i, m));
        V16 d = v16_fma(weighted, scale, v16_mul(load_lanes(x + i, m), pull));
        store_lanes(dx + i, v16_add(load_lanes(dx + i, m), d), m);
    }
    if (dg) {
        for (int i = 0; i < n; i++) {
            dg[i] += (double)(dy[i] * (x[i] * rstd));
        }
    }
}

static void add(float *y, const float *a, const float *b, int n)
{
    FOR_VECTORS(n)
    {
        store_lanes(y + i, v16_add(load_lanes(a + i, m), load_lanes(b + i, m)), m);
    }
}

SIMD_INLINE V16 sigmoid(V16 x)
{
    V16 one = v16_set(1.0f);
    return v16_div(one, v16_add(one, v16_exp(v16_sub(v16_zero(), x))));
}

static void swiglu(float *act, const float *gate, const float *up, int n)
{
    FOR_VECTORS(n)
    {
        V16 g = load_lanes(gate + i, m);
        store_lanes(act + i, v16_mul(v16_mul(g, sigmoid(g)), load_lanes(up + i, m)), m);
    }
}

static void swiglu_backward(float *dact_dgate, float *dup, const float *gate, const float *up,
                            int n)
{
    V16 one = v16_set(1.0f);
    FOR_VECTORS(n)
    {
        V16 g = load_lanes(gate + i, m), s = sigmoid(g), d = load_lanes(dact_dgate + i, m);
        V16 silu = v16_mul(g, s);
        V16 slope = v16_mul(s, v16_fma(g, v16_sub(one, s), one));
        store_lanes(dup + i, v16_mul(d, silu), m);
        store_lanes(dact_dgate + i, v16_mul(v16_mul(d, load_lanes(up + i, m)), slope), m);
    }
}

/* ---- softmax over the vocabulary ---- */

#define SUM_BLOCK 1024 /* terms added in f32 lanes before they go to double */

static void softmax_stats(float *largest, double *sum, double *weighted, const float *logits, int n,
                          float inverse_temperature)
{
    V16 scale = v16_set(inverse_temperature), most = v16_set(-INFINITY);
    FOR_VECTORS(n)
    {
        V16 a = m == LANES ? v16_load(logits + i) : v16_load_n(logits + i, m, logits[0]);
        most = v16_max(v16_mul(a, scale), most);
    }
    float top = v16_largest(most);
    *largest = top;
    *sum = 0;
    if (weighted) {
        *weighted = 0;
    }
    V16 offset = v16_set(top);
    for (int block = 0; block < n; block += SUM_BLOCK) {
        int end = n - block < SUM_BLOCK ? n - block : SUM_BLOCK;
        V16 total = v16_zero(), weight = v16_zero();
        FOR_VECTORS(end)
        {
            V16 a = v16_sub(v16_mul(load_lanes(logits + block + i, m), scale), offset);
            V16 e = v16_exp(a);
            if (m < LANES) { /* lanes past the end add nothing */
                float lanes[LANES];
                v16_store(lanes, e);
                e = v16_load_n(lanes, m, 0.0f);
            }
            total = v16_add(total, e);
            weight = v16_fma(e, a, weight);
        }
        *sum += (double)v16_sum(total);
        if (weighted) {
            *weighted += (double)v16_sum(weight);
        }
    }
}

static double sum_of(const float *x, int n)
{
    double sum = 0;
    for (int block = 0; block < n; block += SUM_BLOCK) {
        int end = n - block < SUM_BLOCK ? n - block : SUM_BLOCK;
        V16 total = v16_zero();
        FOR_VECTORS(end)
        {
            total = v16_add(total, load_lanes(x + block + i, m));
        }
        sum += (double)v16_sum(total);
    }
    return sum;
}

/* d + exp(-d) - 1 for |d| <= 1/2, by its series: the next term is 1e-7 of it. */
SIMD_INLINE V16 divergence_series(V16 d)
{
    V16 s = v16_set(-1.0f / 362880);
    s = v16_fma(s, d, v16_set(1.0f / 40320));
    s = v16_fma(s, d, v16_set(-1.0f / 5040));
    s = v16_fma(s, d, v16_set(1.0f / 720));
    s = v16_fma(s, d, v16_set(-1.0f / 120));
    s = v16_fma(s, d, v16_set(1.0f / 24));
    s = v16_fma(s, d, v16_set(-1.0f / 6));
    s = v16_fma(s, d, v16_set(1.0f / 2));
    return v16_mul(s, v16_mul(d, d));
}

static double softmax_kl(const float *logits, float largest, double sum, const float *reference,
                         float reference_largest, double reference_sum, int n,
                         float inverse_temperature)
{
    V16 scale = v16_set(inverse_temperature);
    V16 p_offset = v16_set(largest), q_offset = v16_set(reference_largest);
    V16 p_share = v16_set((float)(1 / sum)), q_share = v16_set((float)(1 / reference_sum));
    V16 shift = v16_set(
        (float)(((double)reference_largest - (double)largest) + (log(reference_sum) - log(sum))));
    double kl = 0;
    for (int block = 0; block < n; block += SUM_BLOCK) {
        int end = n - block < SUM_BLOCK ? n - block : SUM_BLOCK;
        V16 total = v16_zero();
        FOR_VECTORS(end)
        {
            V16 a = v16_mul(load_lanes(logits + block + i, m), scale);
            V16 b = v16_mul(load_lanes(reference + block + i, m), scale);
            V16 p = v16_mul(v16_exp(v16_sub(a, p_offset)), p_share);
            V16 q = v16_mul(v16_exp(v16_sub(b, q_offset)), q_share);
            V16 d = v16_add(v16_sub(a, b), shift);
            V16 near = v16_mul(p, divergence_series(d));
            V16 far = v16_fma(p, d, v16_sub(q, p));
            V16 size = v16_max(d, v16_sub(v16_zero(), d));
            V16 term = v16_select_less(size, v16_set(0.5f), near, far);
            if (m < LANES) { /* lanes past the end add nothing */
                float lanes[LANES];
                v16_store(lanes, term);
                term = v16_load_n(lanes, m, 0.0f);
            }
            total = v16_add(total, term);
        }
        kl += (double)v16_sum(total);
    }
    return kl;
}

static void softmax_terms(float *e, const float *logits, int n, float inverse_temperature,
                          float largest)
{
    V16 scale = v16_set(inverse_temperature), offset = v16_set(largest);
    FOR_VECTORS(n)
    {
        V16 a = v16_sub(v16_mul(load_lanes(logits + i, m), scale), offset);
        store_lanes(e + i, v16_exp(a), m);
    }
}

static void softmax_backward(float *logits, int n, float inverse_temperature, float largest,
                             double sum, double a, double b)
{
    V16 scale = v16_set(inverse_temperature), offset = v16_set(largest);
    V16 first = v16_set((float)(a / sum * (double)inverse_temperature));
    V16 second = v16_set((float)(b / sum * (double)inverse_temperature));
    FOR_VECTORS(n)
    {
        V16 l = v16_sub(v16_mul(load_lanes(logits + i, m), scale), offset);
        store_lanes(logits + i, v16_mul(v16_exp(l), v16_fma(second, l, first)), m);
    }
}

const Kernels KERNELS = {
    .name = KERNELS_NAME,
    .matmul_few = matmul_few,
    .matmul_many = matmul_many,
    .matmul_transposed = matmul_transposed,
    .few_rows = 3 * TILE_ROWS,
    .rmsnorm = rmsnorm,
    .rmsnorm_backward = rmsnorm_backward,
    .add = add,
    .swiglu = swiglu,
    .swiglu_backward = swiglu_backward,
    .softmax_stats = softmax_stats,
    .sum = sum_of,
    .softmax_kl = softmax_kl,
    .softmax_terms = softmax_terms,
    .softmax_backward = softmax_backward,
    .attention = attention,
    .attention_backward = attention_backward,
};
