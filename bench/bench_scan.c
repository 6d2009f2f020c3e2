/* Times one row of a loss surface, as `scan` measures it: two scalars, x (lower half of the layers)
 * held, y over the points.
 *   bench_scan MODEL DATA THREADS ROWS POINTS [TOKENS]
 * ROWS: the first so many data rows are run and the time is scaled by tokens to the first 128.
 * TOKENS: the rows' token ids are written to this file for the peer: a line "prompt ids ...".
 * Prints one line: s a point of 128 rows, tokens of the rows run, answer tokens of them, GFLOP a
 * point of them that no program can save (what twins share counted once), GFLOP/s of processor
 * time, peak GFLOP/s of multiply-adds in registers measured just before, the two's quotient, peak
 * MiB, the share of the threads' time that they had a core. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "analysis/measure.h"
#include "core/parallel.h"

enum { SCALED_ROWS = 128, MOST_POINTS = 256, RANK = 2 };

static void give_up(const char *message)
{
    fprintf(stderr, "bench_scan: %s\n", message);
    exit(1);
}

static void check(Status status, const Error *error)
{
    if (status) {
        give_up(error->message);
    }
}

/* Of all threads: on a busy machine the better measure. */
static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- peak ---- */

enum { CHAINS = 12, STEPS = 2000000 };
typedef float Vector __attribute__((vector_size(64)));

/* Multiply-adds in registers, as wide as this CPU's; one thread. */
#if defined(__x86_64__)
__attribute__((target_clones("avx512f", "avx2,fma", "default"), optimize("fp-contract=fast")))
#endif
static float
spin(int steps)
{
    Vector chain[CHAINS], a = (Vector){0} + 0.9999999f, b = (Vector){0} + 1e-7f, sum = {0};
    for (int i = 0; i < CHAINS; i++) {
        chain[i] = (Vector){0} + (float)i;
    }
    for (int s = 0; s < steps; s++) {
        for (int i = 0; i < CHAINS; i++) {
            chain[i] = chain[i] * a + b;
        }
    }
    for (int i = 0; i < CHAINS; i++) {
        sum += chain[i];
    }
    return sum[0];
}

static void spin_task(void *context, int i, int thread)
{
    (void)thread;
    ((volatile float *)context)[i] = spin(STEPS);
}

static double peak_gflops(int n_threads)
{
    float sink[256];
    double best = 0;
    for (int r = 0; r < 5; r++) {
        double start = cpu_seconds();
        parallel_for(n_threads, n_threads, spin_task, sink);
        double cpu = (cpu_seconds() - start) / n_threads;
        double rate = 2.0 * 16 * CHAINS * STEPS * n_threads / cpu * 1e-9;
        best = rate > best ? rate : best;
    }
    return best;
}

/* ---- work ---- */

/* Forward FLOP of one row of tokens a point: linear layers and attention of the layers, the
 * vocabulary on scored positions; the layers below `shared` once for all points. */
static double row_flop(const ModelConfig *c, int n_tokens, int n_scored, int shared, int n_points)
{
    double layer = 0;
    for (int role = 0; role < N_ROLES; role++) {
        int out, in;
        role_shape(c, (Role)role, &out, &in);
        layer += 2.0 * out * in * n_tokens;
    }
    layer += 2.0 * n_tokens * (n_tokens + 1.0) * c->n_heads * c->head_dim;
    double layers = c->n_layers - shared + (double)shared / n_points;
    return layers * layer + 2.0 * c->vocab_size * c->width * n_scored;
}

static void write_tokens(const char *path, const Task *task)
{
    FILE *file = fopen(path, "w");
    if (!file) {
        give_up("the file of token ids cannot be written");
    }
    for (int i = 0; i < task->n_rows; i++) {
        fprintf(file, "%d", task->prompts[i].n);
        for (int t = 0; t < task->prompts[i].n; t++) {
            fprintf(file, " %d", (int)task->prompts[i].ids[t]);
        }
        for (int t = 0; t < task->n_answer[i]; t++) {
            fprintf(file, " %d", (int)task->answers[i][t]);
        }
        fputc('\n', file);
    }
    fclose(file);
}

static int number(const char *text)
{
    int value = atoi(text);
    if (value < 1) {
        give_up("a number of at least 1 is expected");
    }
    return value;
}

int main(int argc, char **argv)
{
    if (argc != 6 && argc != 7) {
        give_up("usage: bench_scan MODEL DATA THREADS ROWS POINTS [TOKENS]");
    }
    int n_threads = number(argv[3]), n_rows = number(argv[4]), n_points = number(argv[5]);
    Model *model;
    Task *task;
    Trainer trainer = {0};
    Error error;
    check(model_open(&model, argv[1], n_threads, &error), &error);
    check(task_open(&task, model, argv[2], "question", "answer", "plain", SCALED_ROWS, &error),
          &error);
    if (n_rows > task->n_rows || n_points > MOST_POINTS) {
        give_up("at most 128 rows and 256 points");
    }
    AdapterSpec spec = {.method = "tinylora",
                        .plan = {.rank = RANK, .u = 1, .groups = 2, .tie = TIE_TILED},
                        .targets = (1u << N_ROLES) - 1,
                        .seed = 13,
                        .scale = 1};
    check(engine_new(&trainer.engine, model, n_threads, 0, &error), &error);
    check(model_pack(model, &error), &error);
    check(adapter_bank_new(&trainer.bank, model, &spec, n_points, n_threads, NULL, NULL, NULL,
                           &error),
          &error);
    float v[2 * MOST_POINTS];
    for (int k = 0; k < n_points; k++) {
        v[2 * k] = 0.01f;
        v[2 * k + 1] = n_points > 1 ? -0.05f + 0.1f * (float)k / (float)(n_points - 1) : 0.02f;
    }
    MeasureSettings settings = {.task = task, .n_rows = 1, .metrics = MEASURE_LOSS};
    Measured measured[MOST_POINTS];
    memset(measured, 0, sizeof measured);
    check(measure_points(measured, &trainer, &settings, v, n_points, &error), &error);
    double peak = peak_gflops(n_threads);
    int shared = n_points > 1 ? adapter_shared_layers(trainer.bank, 1, 2) : 0;
    for (int k = 0; k < n_points; k++) {
        measured_release(&measured[k]);
    }

    settings.n_rows = n_rows;
    double start = now(), cpu = cpu_seconds();
    check(measure_points(measured, &trainer, &settings, v, n_points, &error), &error);
    double seconds = now() - start, flop = 0, tokens = 0, all = 0;
    int n_scored = 0;
    for (int i = 0; i < task->n_rows; i++) {
        int n = task->prompts[i].n + task->n_answer[i];
        all += n;
        if (i < n_rows) {
            tokens += n;
            n_scored += task->n_answer[i];
            flop += row_flop(&model->config, n, task->n_answer[i], shared, n_points);
        }
    }
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    cpu = (cpu_seconds() - cpu) / n_threads;
    double rate = flop * n_points / cpu * 1e-9;
    printf("scan %.4f %.0f %d %.1f %.1f %.1f %.2f %ld %.2f\n",
           seconds / n_points * all / tokens * SCALED_ROWS / task->n_rows, tokens, n_scored,
           flop * 1e-9, rate, peak, peak / rate, usage.ru_maxrss / 1024, cpu / seconds);
    if (argc == 7) {
        write_tokens(argv[6], task);
    }
    for (int k = 0; k < n_points; k++) {
        measured_release(&measured[k]);
    }
    adapter_bank_free(trainer.bank);
    engine_free(trainer.engine);
    task_close(task);
    model_free(model);
    return 0;
}
