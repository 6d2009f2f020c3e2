/* The products against double precision, and the law on bits: rows, threads, CPU families. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/kernels.h"
#include "core/matrix.h"
#include "core/random.h"

static float normal(uint32_t a, uint32_t b)
{
    return (float)random_normal((RandomKey){91, RANDOM_DATA}, a, b, 0, 0);
}

typedef struct {
    int rows, n_in, n_out;
    float *x, *w, *bias, *dy; /* w holds values that the type represents exactly */
    void *data;
    TensorType type;
    Matrix matrix;
} Case;

static __attribute__((noinline)) float *normals(uint32_t purpose, size_t n)
{
    float *values = malloc(n * sizeof *values);
    for (size_t i = 0; i < n; i++) {
        values[i] = normal(purpose, (uint32_t)i);
    }
    return values;
}

static Case make_case(int rows, int n_in, int n_out, TensorType type)
{
    assert_true(rows > 0 && n_in > 0 && n_out > 0);
    Case c = {.rows = rows, .n_in = n_in, .n_out = n_out, .type = type};
    size_t n_w = (size_t)n_out * (size_t)n_in;
    c.x = normals(1, (size_t)rows * (size_t)n_in);
    c.dy = normals(2, (size_t)rows * (size_t)n_out);
    c.bias = normals(3, (size_t)n_out);
    c.w = normals(4, n_w + 8000);
    c.data = malloc(n_w * 4);
    for (size_t i = 0; i < n_w; i++) {
        if (type == TENSOR_BF16) {
            uint32_t bits;
            memcpy(&bits, &c.w[i], 4);
            uint16_t half = (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
            bits = (uint32_t)half << 16;
            memcpy(&c.w[i], &bits, 4);
            memcpy((char *)c.data + 2 * i, &half, 2);
        } else if (type == TENSOR_F16) {
            /* 10 bits of mantissa by hand: values of size 1 are normal halves */
            float value = c.w[i] < 6e-5f && c.w[i] > -6e-5f ? 0.31f : c.w[i];
            uint32_t bits;
            memcpy(&bits, &value, 4);
            bits &= 0xffffe000u;
            memcpy(&c.w[i], &bits, 4);
            uint16_t half =
                (uint16_t)(((bits >> 16) & 0x8000u) | (((bits & 0x7fffffffu) - 0x38000000u) >> 13));
            memcpy((char *)c.data + 2 * i, &half, 2);
        } else {
            memcpy((char *)c.data + 4 * i, &c.w[i], 4);
        }
    }
    assert_int_equal(matrix_pack(&c.matrix, c.data, type, n_out, n_in, 1, NULL), STATUS_OK);
    return c;
}

static void free_case(Case *c)
{
    free(c->x);
    free(c->dy);
    free(c->w);
    free(c->bias);
    free(c->data);
    matrix_release(&c->matrix);
}

static void fill_nan(float *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        p[i] = NAN;
    }
}

static const TensorType types[] = {TENSOR_F32, TENSOR_F16, TENSOR_BF16};

static void products_match_double_precision(void **state)
{
    (void)state;
    const int shapes[][3] = {{1, 17, 5},    {3, 300, 33},  {8, 64, 64},     {13, 65, 70},
                             {37, 172, 31}, {50, 530, 96}, {150, 1060, 33}, {150, 33, 1060}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        for (int t = 0; t < 3; t++) {
            Case c = make_case(shapes[s][0], shapes[s][1], shapes[s][2], types[t]);
            float *y = malloc((size_t)c.rows * c.n_out * 4),
                  *dx = malloc((size_t)c.rows * c.n_in * 4);
            fill_nan(y, (size_t)c.rows * c.n_out);
            fill_nan(dx, (size_t)c.rows * c.n_in);
            matrix_forward(y, c.n_out, c.x, c.n_in, &c.matrix, c.bias, c.rows, 2);
            matrix_backward(dx, c.n_in, c.dy, c.n_out, &c.matrix, c.rows, 0, 2);
            for (int r = 0; r < c.rows; r++) {
                for (int n = 0; n < c.n_out; n++) {
                    double sum = c.bias[n];
                    for (int k = 0; k < c.n_in; k++) {
                        sum += (double)c.x[r * c.n_in + k] * c.w[n * c.n_in + k];
                    }
                    /* a chain of n f32 terms: error about sqrt(n) * 2^-24 * sqrt(n), the worst of
                     * thousands four times that */
                    assert_true(fabs(sum - y[r * c.n_out + n]) < 1e-5 + 2.5e-7 * c.n_in);
                }
                for (int k = 0; k < c.n_in; k++) {
                    double sum = 0;
                    for (int n = 0; n < c.n_out; n++) {
                        sum += (double)c.dy[r * c.n_out + n] * c.w[n * c.n_in + k];
                    }
                    assert_true(fabs(sum - dx[r * c.n_in + k]) < 1e-5 + 2.5e-7 * c.n_out);
                }
            }
            free(y);
            free(dx);
            free_case(&c);
        }
    }
}

static void a_row_has_the_same_bits_alone_and_among_others(void **state)
{
    (void)state;
    const int shapes[][3] = {{400, 333, 77}, {160, 1100, 41}, {160, 41, 1100}}; /* over blocks */
    for (int s = 0; s < 9; s++) {
        Case c = make_case(shapes[s / 3][0], shapes[s / 3][1], shapes[s / 3][2], types[s % 3]);
        size_t n = (size_t)c.rows * c.n_out, m = (size_t)c.rows * c.n_in;
        float *all = malloc(n * 4), *some = malloc(n * 4);
        float *dall = malloc(m * 4), *dsome = malloc(m * 4);
        matrix_forward(all, c.n_out, c.x, c.n_in, &c.matrix, c.bias, c.rows, 1);
        matrix_backward(dall, c.n_in, c.dy, c.n_out, &c.matrix, c.rows, 0, 1);
        for (int rows = 1; rows < 60; rows++) {
            int threads = 1 + rows % 3, first = (rows * 7) % (c.rows - rows);
            fill_nan(some, n);
            fill_nan(dsome, m);
            matrix_forward(some, c.n_out, c.x + first * c.n_in, c.n_in, &c.matrix, c.bias, rows,
                           threads);
            assert_memory_equal(some, all + first * c.n_out, (size_t)rows * c.n_out * 4);
            matrix_backward(dsome, c.n_in, c.dy + first * c.n_out, c.n_out, &c.matrix, rows, 0,
                            threads);
            assert_memory_equal(dsome, dall + first * c.n_in, (size_t)rows * c.n_in * 4);
        }
        free(all);
        free(some);
        free(dall);
        free(dsome);
        free_case(&c);
    }
}

static void accumulating_continues_the_sum(void **state)
{
    (void)state;
    Case c = make_case(9, 40, 50, TENSOR_BF16);
    float dx[9 * 40];
    for (int i = 0; i < 9 * 40; i++) {
        dx[i] = 2.385f;
    }
    matrix_backward(dx, 40, c.dy, 50, &c.matrix, 9, 1, 2);
    for (int r = 0; r < 9; r++) {
        for (int k = 0; k < 40; k++) {
            double sum = 2.385f;
            for (int n = 0; n < 50; n++) {
                sum += (double)c.dy[r * 50 + n] * c.w[n * 40 + k];
            }
            assert_true(fabs(sum - dx[r * 40 + k]) < 2e-5);
        }
    }
    free_case(&c);
}

/* n queries, whose keys and values end with the last of CAPACITY positions. Returns the end of what
 * was written. */
static float *run_attention(const Kernels *f, const Case *c, int head_dim, int n, float *out)
{
    enum { CAPACITY = 48, MOST = 5 };
    float scratch[8 * CAPACITY];
    float *o[MOST], *dq[MOST];
    const float *q[MOST], *d[MOST], *const_o[MOST];
    const int limits[MOST] = {3, 48, 17, 31, 8};
    int size = CAPACITY * head_dim;
    for (int i = 0; i < n; i++) {
        const_o[i] = o[i] = out + i * head_dim;
        dq[i] = out + (n + i) * head_dim;
        q[i] = c->w + i * head_dim;
        d[i] = c->w + (n + i) * head_dim;
    }
    const float *keys = c->w + 400, *values = c->w + 1400;
    f->attention(o, q, limits, n, keys, values, CAPACITY, head_dim, 0.2f, scratch);
    float *dk = out + 2 * n * head_dim, *dv = dk + size;
    memset(dk, 0, 2 * (size_t)size * sizeof *dk);
    f->attention_backward(dq, dk, dv, d, const_o, q, limits, n, keys, c->w + 2400, c->w + 3400,
                          CAPACITY, head_dim, 0.2f, scratch);
    return dv + size;
}

/* Everything that a family offers, on one input, into one block of floats. */
static void run_family(const Kernels *f, const Case *c, float *out)
{
    PackedMatrix w = {c->matrix.packed, c->type, c->n_out, c->n_in};
    float scratch[KERNEL_SCRATCH];
    int panels = (c->n_out + 31) / 32, blocks = (c->n_in + 31) / 32, m = c->n_in;
    size_t ldy = (size_t)c->n_out, ldx = (size_t)c->n_in;
    for (int rows = 1; rows <= 12;
         rows++) { /* one row takes panels four at a time, many one by one */
        f->matmul_few(out, ldy, c->x, ldx, &w, rows % 2 ? c->bias : NULL, rows, 0, panels);
        out += rows * c->n_out;
    }
    f->matmul_many(out, ldy, c->x, ldx, &w, NULL, c->rows, 0, panels, scratch);
    out += c->rows * c->n_out;
    f->matmul_transposed(out, ldx, c->dy, ldy, &w, c->rows, 0, 0, blocks, scratch);
    out += c->rows * c->n_in;
    out[0] = f->rmsnorm(out + 1, c->x, c->w, m, 1e-6f);
    out += m + 1;
    memcpy(out, c->x, (size_t)m * 4);
    f->rmsnorm_backward(out, NULL, c->x + m, c->x, c->w, m, 1e-6f);
    out += m;
    f->swiglu(out, c->x, c->x + m, m);
    out += m;
    memcpy(out, c->x, (size_t)m * 4);
    f->swiglu_backward(out, out + m, c->x + 2 * m, c->x + m, m);
    out += 2 * m;
    double sum, weighted;
    f->softmax_stats(out, &sum, &weighted, c->x, m, 0.7f);
    out[1] = (float)sum;
    out[2] = (float)weighted;
    f->softmax_terms(out + 3, c->x, m, 0.7f, out[0]);
    memcpy(out + 3 + m, c->x, (size_t)m * 4);
    f->softmax_backward(out + 3 + m, m, 0.7f, out[0], sum, -1.27, 0.31);
    out += 3 + 2 * m;
    for (int n = 1; n <= 5; n++) {
        out = run_attention(f, c, 24, n, out);
    }
    out = run_attention(f, c, 8, 5, out); /* less than a vector, one and a part, two and a part */
    out = run_attention(f, c, 18, 2, out);
    out = run_attention(f, c, 40, 3, out);
    run_attention(f, c, 32, 2, out);
}

static void all_families_give_the_same_bits(void **state)
{
    (void)state;
    for (int t = 0; t < 3; t++) {
        Case c = make_case(45, 101, 67, types[t]);
        size_t n = 50000;
        float *expected = malloc(n * 4), *got = malloc(n * 4);
        fill_nan(expected, n);
        run_family(kernels_find("portable"), &c, expected);
        const char *names[] = {"avx2", "avx512"};
        for (int i = 0; i < 2; i++) {
            const Kernels *family = kernels_find(names[i]);
            if (!family) {
                print_message("no %s on this CPU: skipped\n", names[i]);
                continue;
            }
            fill_nan(got, n);
            run_family(family, &c, got);
            for (size_t k = 0; k < n; k++) {
                if (memcmp(got + k, expected + k, 4) != 0 &&
                    !(isnan(got[k]) && isnan(expected[k]))) {
                    fail_msg("%s differs at float %zu: %a, portable %a", names[i], k,
                             (double)got[k], (double)expected[k]);
                }
            }
        }
        free(expected);
        free(got);
        free_case(&c);
    }
}

static void exp_is_accurate_to_two_ulp(void **state)
{
    (void)state;
    const Kernels *f = kernels_best();
    float e, x;
    for (x = -87.0f; x < 0.0f; x += 0.0371f) {
        f->softmax_terms(&e, &x, 1, 1.0f, 0.0f);
        double exact = exp((double)x);
        assert_true(fabs((double)e - exact) <= 2.5e-7 * exact);
    }
    x = -INFINITY;
    f->softmax_terms(&e, &x, 1, 1.0f, 0.0f);
    assert_true(e == 0.0f);
    x = NAN;
    f->softmax_terms(&e, &x, 1, 1.0f, 0.0f);
    assert_true(isnan(e));
}

/* Random blocks with scales that are numbers. */
static unsigned char *quant_blocks(TensorType type, size_t n, uint32_t purpose)
{
    static const struct {
        size_t block, scales[2];
    } places[] = {[TENSOR_Q8_0] = {32, {0, 0}},
                  [TENSOR_Q4_0] = {32, {0, 0}},
                  [TENSOR_Q4_K] = {256, {0, 2}},
                  [TENSOR_Q6_K] = {256, {208, 208}},
                  [TENSOR_Q5_0] = {32, {0, 0}}};
    size_t n_bytes = tensor_type_bytes(type, n),
           block = tensor_type_bytes(type, places[type].block);
    unsigned char *bytes = malloc(n_bytes);
    for (size_t i = 0; i < n_bytes; i++) {
        bytes[i] = (unsigned char)(normal(purpose, (uint32_t)i) * 1000);
    }
    for (size_t i = 0; i < n_bytes; i += block) {
        for (int j = 0; j < 2; j++) {
            float scale = 0.01f * normal(purpose + 1, (uint32_t)(2 * i) + (uint32_t)j);
            tensor_from_f32(bytes + i + places[type].scales[j], &scale, TENSOR_F16, 1);
        }
    }
    return bytes;
}

static void quantised_weights_give_the_bits_of_their_f32(void **state)
{
    (void)state;
    static const TensorType quantised[] = {TENSOR_Q8_0, TENSOR_Q4_0, TENSOR_Q4_K, TENSOR_Q6_K,
                                           TENSOR_Q5_0};
    static const int rows[] = {1, 2, 3, 6, 7, 13, 25, 50};
    static const char *const families[] = {"portable", "avx2", "avx512"};
    const int n_in = 512, n_out = 203;
    for (uint32_t t = 0; t < 5; t++) {
        unsigned char *blocks = quant_blocks(quantised[t], (size_t)n_in * n_out, 20 + 2 * t);
        float *w = malloc((size_t)n_in * n_out * sizeof *w), *bias = normals(40, (size_t)n_out);
        float *x = normals(41, (size_t)50 * n_in), *dy = normals(42, (size_t)50 * n_out);
        float *y[2], *dx[2];
        Matrix a, b;
        tensor_to_f32(w, blocks, quantised[t], (size_t)n_in * n_out);
        assert_int_equal(matrix_pack(&a, blocks, quantised[t], n_out, n_in, 2, NULL), STATUS_OK);
        assert_int_equal(matrix_pack(&b, w, TENSOR_F32, n_out, n_in, 2, NULL), STATUS_OK);
        assert_true(matrix_bytes(&a) * 3 < matrix_bytes(&b));
        for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
            for (int i = 0; i < 2; i++) {
                y[i] = malloc((size_t)rows[r] * n_out * sizeof(float));
                dx[i] = malloc((size_t)rows[r] * n_in * sizeof(float));
                matrix_forward(y[i], n_out, x, n_in, i ? &b : &a, bias, rows[r], 2);
                matrix_backward(dx[i], n_in, dy, n_out, i ? &b : &a, rows[r], 0, 2);
            }
            assert_memory_equal(y[0], y[1], (size_t)rows[r] * n_out * sizeof(float));
            assert_memory_equal(dx[0], dx[1], (size_t)rows[r] * n_in * sizeof(float));
            for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
                const Kernels *f = kernels_find(families[i]);
                PackedMatrix panels = {a.packed, a.type, n_out, n_in};
                if (f && rows[r] <= f->few_rows) {
                    fill_nan(y[0], (size_t)rows[r] * n_out);
                    f->matmul_few(y[0], n_out, x, n_in, &panels, bias, rows[r], 0,
                                  (n_out + MATRIX_PANEL - 1) / MATRIX_PANEL);
                    assert_memory_equal(y[0], y[1], (size_t)rows[r] * n_out * sizeof(float));
                }
            }
            for (int i = 0; i < 2; i++) {
                free(y[i]);
                free(dx[i]);
            }
        }
        matrix_release(&a);
        matrix_release(&b);
        free(blocks);
        free(w);
        free(bias);
        free(x);
        free(dy);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_match_double_precision),
        cmocka_unit_test(quantised_weights_give_the_bits_of_their_f32),
        cmocka_unit_test(a_row_has_the_same_bits_alone_and_among_others),
        cmocka_unit_test(accumulating_continues_the_sum),
        cmocka_unit_test(all_families_give_the_same_bits),
        cmocka_unit_test(exp_is_accurate_to_two_ulp),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
