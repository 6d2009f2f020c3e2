/* Packing of frozen weights, and how a product is split over threads: by output columns, never by
 * the sum. */
#include "core/matrix.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/block.h"
#include "core/gguf_quant.h"
#include "core/kernels.h"
#include "core/parallel.h"

enum { LANES_PER_VECTOR = 16 };

static size_t element_bytes(TensorType type)
{
    return type == TENSOR_F32 ? 4 : 2;
}

static bool halves_bytes(TensorType type)
{
    return type == TENSOR_Q4_0 || type == TENSOR_Q4_K;
}

static int n_panels(const Matrix *matrix)
{
    return (matrix->n_out + MATRIX_PANEL - 1) / MATRIX_PANEL;
}

static size_t panel_bytes(const Matrix *matrix)
{
    size_t n = (size_t)matrix->n_in * MATRIX_PANEL;
    if (tensor_type_plain(matrix->type)) {
        return n * element_bytes(matrix->type);
    }
    size_t n_scales = n / quant_group_size(matrix->type) * (matrix->type == TENSOR_Q4_K ? 2 : 1);
    return n_scales * sizeof(float) + n / (halves_bytes(matrix->type) ? 2 : 1);
}

size_t matrix_bytes(const Matrix *matrix)
{
    return (size_t)n_panels(matrix) * panel_bytes(matrix);
}

/* A full panel of bf16, a word of two columns at a time: 32 streams in, one out. */
static void pack_words(char *out, const char *const *rows, size_t n_in)
{
    for (size_t k = 0; k < n_in; k++) {
        for (size_t j = 0; j < LANES_PER_VECTOR; j++) {
            uint16_t low, high;
            memcpy(&low, rows[j] + 2 * k, sizeof low);
            memcpy(&high, rows[j + LANES_PER_VECTOR] + 2 * k, sizeof high);
            uint32_t word = low | (uint32_t)high << 16;
            memcpy(out + 4 * (k * LANES_PER_VECTOR + j), &word, sizeof word);
        }
    }
}

typedef struct {
    Matrix *matrix;
    const Tensor *tensor;
} PackJob;

/* Place of column j inside a panel row: bf16 interleaves j and j + 16 in one word. */
static int packed_column(TensorType type, int j)
{
    return type != TENSOR_BF16 ? j : j < LANES_PER_VECTOR ? 2 * j : 2 * (j - LANES_PER_VECTOR) + 1;
}

/* Column j of a quantised panel, its codes zero before. row: NULL for a column of zeros. */
static void pack_quantised(char *panel, int j, const void *row, TensorType type, size_t n_in)
{
    size_t size = quant_group_size(type);
    for (size_t group = 0; group < n_in / size; group++) {
        float scale = 0, offset = 0;
        int8_t codes[QUANT_GROUP_MAX] = {0};
        if (row) {
            quant_group(&scale, &offset, codes, row, type, group);
        }
        float *scales = (float *)(void *)panel;
        scales[j] = scale;
        if (type == TENSOR_Q4_K) {
            scales[MATRIX_PANEL + j] = offset;
        }
        uint8_t *out = (uint8_t *)(scales + (type == TENSOR_Q4_K ? 2 : 1) * MATRIX_PANEL);
        for (size_t k = 0; k < size && halves_bytes(type); k++) {
            int code = type == TENSOR_Q4_0 ? codes[k] + 8 : codes[k];
            out[k / 2 * MATRIX_PANEL + (size_t)j] |= (uint8_t)(code << k % 2 * 4);
        }
        for (size_t k = 0; k < size && !halves_bytes(type); k++) {
            out[k * MATRIX_PANEL + (size_t)j] = (uint8_t)codes[k];
        }
        panel = (char *)out + size * MATRIX_PANEL / (halves_bytes(type) ? 2 : 1);
    }
}

static void pack_panel(void *context, int panel, int thread)
{
    (void)thread;
    const PackJob *job = context;
    const Matrix *matrix = job->matrix;
    size_t size = element_bytes(matrix->type), n_in = (size_t)matrix->n_in;
    char *out = (char *)matrix->packed + (size_t)panel * panel_bytes(matrix);
    if (matrix->type == TENSOR_BF16 && (panel + 1) * MATRIX_PANEL <= matrix->n_out) {
        const char *rows[MATRIX_PANEL];
        for (int j = 0; j < MATRIX_PANEL; j++) {
            rows[j] = tensor_row(job->tensor, (size_t)panel * MATRIX_PANEL + (size_t)j);
        }
        pack_words(out, rows, n_in);
        return;
    }
    if (!tensor_type_plain(matrix->type)) {
        memset(out, 0, panel_bytes(matrix));
    }
    for (int j = 0; j < MATRIX_PANEL; j++) {
        int row = panel * MATRIX_PANEL + j, column = packed_column(matrix->type, j);
        const char *in = row < matrix->n_out ? tensor_row(job->tensor, (size_t)row) : NULL;
        if (!tensor_type_plain(matrix->type)) {
            pack_quantised(out, j, in, job->tensor->type, n_in);
        } else if (!in) {
            for (size_t k = 0; k < n_in; k++) {
                memset(out + (k * MATRIX_PANEL + (size_t)column) * size, 0, size);
            }
        } else if (size == 2) {
            for (size_t k = 0; k < n_in; k++) {
                memcpy(out + (k * MATRIX_PANEL + (size_t)column) * 2, in + 2 * k, 2);
            }
        } else {
            for (size_t k = 0; k < n_in; k++) {
                memcpy(out + (k * MATRIX_PANEL + (size_t)column) * 4, in + 4 * k, 4);
            }
        }
    }
}

Status matrix_reserve(Matrix *matrix, TensorType type, int n_out, int n_in, Error *error)
{
    assert(type != TENSOR_OTHER && n_out > 0 && n_in > 0);
    /* Codes of 5 bits are packed as bytes: the panels of Q8_0. */
    type = type == TENSOR_Q5_0 ? TENSOR_Q8_0 : type;
    *matrix = (Matrix){.n_out = n_out, .n_in = n_in, .type = type};
    matrix->packed = block_new(matrix_bytes(matrix));
    return matrix->packed
               ? STATUS_OK
               : error_set(error, STATUS_FAILED, "out of memory: a weight matrix wants %.2f GiB",
                           (double)matrix_bytes(matrix) / 0x1p30);
}

void matrix_fill(Matrix *matrix, const Tensor *tensor, int n_threads)
{
    PackJob job = {matrix, tensor};
    parallel_for(n_panels(matrix), n_threads, pack_panel, &job);
}

static Tensor rows_of(const void *data, TensorType type, int n_out, int n_in)
{
    return (Tensor){.type = type, .n_dims = 2, .dims = {(size_t)n_out, (size_t)n_in}, .data = data};
}

Status matrix_pack(Matrix *matrix, const void *data, TensorType type, int n_out, int n_in,
                   int n_threads, Error *error)
{
    Tensor tensor = rows_of(data, type, n_out, n_in);
    Status status = matrix_reserve(matrix, type, n_out, n_in, error);
    if (status == STATUS_OK) {
        matrix_fill(matrix, &tensor, n_threads);
    }
    return status;
}

void matrix_repack(Matrix *matrix, const float *data, int n_threads)
{
    assert(matrix->type == TENSOR_F32);
    Tensor tensor = rows_of(data, TENSOR_F32, matrix->n_out, matrix->n_in);
    matrix_fill(matrix, &tensor, n_threads);
}

void matrix_release(Matrix *matrix)
{
    free(matrix->packed);
    *matrix = (Matrix){0};
}

typedef struct {
    const Kernels *kernels;
    PackedMatrix w;
    float *out;
    const float *in, *bias;
    size_t ld_out, ld_in;
    int rows, accumulate;
    int n_columns, per_task; /* blocks of 32 output columns, how many a task takes */
} Product;

static void forward_task(void *context, int task, int thread)
{
    (void)thread;
    const Product *p = context;
    int first = task * p->per_task;
    int last = first + p->per_task < p->n_columns ? first + p->per_task : p->n_columns;
    if (p->rows <= p->kernels->few_rows) {
        p->kernels->matmul_few(p->out, p->ld_out, p->in, p->ld_in, &p->w, p->bias, p->rows, first,
                               last);
    } else {
        _Alignas(64) float scratch[KERNEL_SCRATCH];
        p->kernels->matmul_many(p->out, p->ld_out, p->in, p->ld_in, &p->w, p->bias, p->rows, first,
                                last, scratch);
    }
}

static void backward_task(void *context, int task, int thread)
{
    (void)thread;
    const Product *p = context;
    int first = task * p->per_task;
    int last = first + p->per_task < p->n_columns ? first + p->per_task : p->n_columns;
    _Alignas(64) float scratch[KERNEL_SCRATCH];
    p->kernels->matmul_transposed(p->out, p->ld_out, p->in, p->ld_in, &p->w, p->rows, p->accumulate,
                                  first, last, scratch);
}

/* Two tasks a thread even out a busy machine; small products stay on one thread, where waking
 * another costs more. */
static void run_product(Product *p, int n_threads, void (*task)(void *, int, int))
{
    double work = (double)p->rows * p->w.n_in * p->w.n_out;
    if (work < 5e5) {
        n_threads = 1;
    }
    int n_tasks = n_threads == 1 ? 1 : 2 * n_threads;
    p->per_task = (p->n_columns + n_tasks - 1) / n_tasks;
    n_tasks = (p->n_columns + p->per_task - 1) / p->per_task;
    parallel_for(n_tasks, n_threads, task, p);
}

void matrix_forward(float *y, int ldy, const float *x, int ldx, const Matrix *w, const float *bias,
                    int rows, int n_threads)
{
    Product product = {.kernels = kernels_best(),
                       .w = {w->packed, w->type, w->n_out, w->n_in},
                       .out = y,
                       .in = x,
                       .bias = bias,
                       .ld_out = (size_t)ldy,
                       .ld_in = (size_t)ldx,
                       .rows = rows,
                       .n_columns = n_panels(w)};
    if (rows > 0) {
        run_product(&product, n_threads, forward_task);
    }
}

void matrix_backward(float *dx, int ldx, const float *dy, int ldy, const Matrix *w, int rows,
                     int accumulate, int n_threads)
{
    Product product = {.kernels = kernels_best(),
                       .w = {w->packed, w->type, w->n_out, w->n_in},
                       .out = dx,
                       .in = dy,
                       .ld_out = (size_t)ldx,
                       .ld_in = (size_t)ldy,
                       .rows = rows,
                       .accumulate = accumulate,
                       .n_columns = (w->n_in + MATRIX_PANEL - 1) / MATRIX_PANEL};
    if (rows > 0) {
        run_product(&product, n_threads, backward_task);
    }
}
