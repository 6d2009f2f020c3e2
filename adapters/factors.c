/* Factors of all modules of a model: from the disk where they are kept, else computed, each thread
 * its own module.
 *
 * The cache is a convenience that is never trusted: a file that is absent, short, of another key or
 * with a wrong checksum is as good as none, and a disk that cannot be written costs time, not the
 * run. */
#include "adapters/factors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "adapters/svd.h"
#include "core/file.h"
#include "core/parallel.h"

#define ALGORITHM "tinylora-factors-1" /* change when other bits come out of the same weights */
enum { START_SEED = 0, KEY_SIZE = 256 };

Status factors_compute(Factors *out, const float *w, int n_out, int n_in, int rank, uint64_t seed,
                       Error *error)
{
    int most = n_out < n_in ? n_out : n_in;
    if (rank < 1 || rank > most) {
        return error_set(error, STATUS_USAGE,
                         "rank %d of a %d x %d matrix: from 1 to %d are possible", rank, n_out,
                         n_in, most);
    }
    Factors f = {.n_out = n_out, .n_in = n_in, .rank = rank};
    f.u = malloc((size_t)rank * n_out * sizeof *f.u);
    f.s = malloc((size_t)rank * sizeof *f.s);
    f.v = malloc((size_t)rank * n_in * sizeof *f.v);
    Status status = f.u && f.s && f.v
                        ? svd_top(f.u, f.s, f.v, w, n_out, n_in, rank, seed, error)
                        : error_set(error, STATUS_FAILED, "no memory for factors of rank %d", rank);
    if (status != STATUS_OK) {
        factors_release(&f);
        return status;
    }
    *out = f;
    return STATUS_OK;
}

void factors_release(Factors *factors)
{
    free(factors->u);
    free(factors->s);
    free(factors->v);
    *factors = (Factors){0};
}

/* What the factors are a function of. w: the module's weight, hashed where the model has no hash of
 * its own. */
static void make_key(char key[KEY_SIZE], const Model *model, const Module *module, const float *w,
                     int n_out, int n_in, int rank)
{
    char name[96], hash[SHA256_HEX_SIZE];
    module_name(name, module->layer, module->role);
    if (model->weights_sha256[0]) {
        memcpy(hash, model->weights_sha256, sizeof hash);
    } else {
        sha256_bytes(hash, w, (size_t)n_out * n_in * sizeof *w);
    }
    snprintf(key, KEY_SIZE, "%s %s %s %dx%d rank %d\n", ALGORITHM, hash, name, n_out, n_in, rank);
}

static Status cache_path(char path[FILE_PATH_MAX], const char *directory, const char *key)
{
    char name[SHA256_HEX_SIZE + 16], hash[SHA256_HEX_SIZE];
    sha256_bytes(hash, key, strlen(key));
    snprintf(name, sizeof name, "%s.factors", hash);
    return path_join(path, directory, name, NULL);
}

/* The file: key line, u, s, v, then the SHA-256 of all that in hex. */
static size_t body_size(const char *key, int n_out, int n_in, int rank)
{
    return strlen(key) + ((size_t)n_out + (size_t)n_in + 1) * (size_t)rank * sizeof(float);
}

static bool cache_read(Factors *out, const char *directory, const char *key, int n_out, int n_in,
                       int rank)
{
    char path[FILE_PATH_MAX];
    size_t body = body_size(key, n_out, n_in, rank), n;
    size_t whole = body + SHA256_HEX_SIZE - 1;
    char *bytes;
    if (cache_path(path, directory, key) != STATUS_OK ||
        file_read(&bytes, &n, path, whole, NULL) != STATUS_OK) {
        return false;
    }
    Factors f = {.n_out = n_out, .n_in = n_in, .rank = rank};
    char hash[SHA256_HEX_SIZE];
    bool good = n == whole && memcmp(bytes, key, strlen(key)) == 0;
    if (good) {
        sha256_bytes(hash, bytes, body);
        good = memcmp(hash, bytes + body, SHA256_HEX_SIZE - 1) == 0;
    }
    if (good) {
        size_t n_u = (size_t)rank * n_out * sizeof(float), n_s = (size_t)rank * sizeof(float);
        size_t n_v = (size_t)rank * n_in * sizeof(float);
        f.u = malloc(n_u);
        f.s = malloc(n_s);
        f.v = malloc(n_v);
        good = f.u && f.s && f.v;
        if (good) {
            const char *from = bytes + strlen(key);
            memcpy(f.u, from, n_u);
            memcpy(f.s, from + n_u, n_s);
            memcpy(f.v, from + n_u + n_s, n_v);
        }
    }
    free(bytes);
    if (!good) {
        factors_release(&f);
        return false;
    }
    *out = f;
    return true;
}

static void cache_write(const Factors *f, const char *directory, const char *key)
{
    char path[FILE_PATH_MAX];
    size_t body = body_size(key, f->n_out, f->n_in, f->rank);
    char *bytes = malloc(body + SHA256_HEX_SIZE);
    if (bytes == NULL || cache_path(path, directory, key) != STATUS_OK) {
        free(bytes);
        return;
    }
    size_t n_u = (size_t)f->rank * f->n_out * sizeof(float), n_s = (size_t)f->rank * sizeof(float);
    char *to = bytes + strlen(key);
    memcpy(bytes, key, strlen(key));
    memcpy(to, f->u, n_u);
    memcpy(to + n_u, f->s, n_s);
    memcpy(to + n_u + n_s, f->v, (size_t)f->rank * f->n_in * sizeof(float));
    sha256_bytes(bytes + body, bytes, body);
    (void)file_write(path, bytes, body + SHA256_HEX_SIZE - 1, NULL);
    free(bytes);
}

static Status open_module(Factors *out, const Model *model, const Module *module, int rank,
                          const char *directory, Error *error)
{
    int n_out, n_in;
    char key[KEY_SIZE];
    role_shape(&model->config, module->role, &n_out, &n_in);
    bool hashed = model->weights_sha256[0] != 0; /* the key then needs no weights */
    if (directory && hashed) {
        make_key(key, model, module, NULL, n_out, n_in, rank);
        if (cache_read(out, directory, key, n_out, n_in, rank)) {
            return STATUS_OK;
        }
    }
    float *w = malloc((size_t)n_out * n_in * sizeof *w);
    if (w == NULL) {
        return error_set(error, STATUS_FAILED, "no memory for a weight: %.1f GiB",
                         (double)n_out * n_in * sizeof *w / 0x1p30);
    }
    model_module_weight(model, module->layer, module->role, w);
    if (directory && !hashed) {
        make_key(key, model, module, w, n_out, n_in, rank);
    }
    Status status = STATUS_OK;
    if (!directory || hashed || !cache_read(out, directory, key, n_out, n_in, rank)) {
        status = factors_compute(out, w, n_out, n_in, rank, START_SEED, error);
        if (status == STATUS_OK && directory) {
            cache_write(out, directory, key);
        }
    }
    free(w);
    return status;
}

/* Modules divided among threads. */
typedef struct {
    Factors *factors;
    const Model *model;
    const Module *modules;
    int n_modules, rank;
    const char *directory;
    void (*progress)(void *, int, int);
    void *progress_context;
    int n_done;
    int failed; /* the first module that failed, whoever was faster; n_modules: none */
    Status status;
    Error error;
} Work;

static void work_on_module(void *context, int i, int thread)
{
    (void)thread;
    Work *w = context;
    Error error = {{0}};
    Status status =
        open_module(&w->factors[i], w->model, &w->modules[i], w->rank, w->directory, &error);
#pragma omp critical(adapters_factors)
    {
        if (status != STATUS_OK && i < w->failed) {
            w->failed = i;
            w->status = status;
            w->error = error;
        }
        w->n_done++;
        if (w->progress) {
            w->progress(w->progress_context, w->n_done, w->n_modules);
        }
    }
}

Status factors_open(Factors *factors, const Model *model, const Module *modules, int n_modules,
                    int rank, int n_threads, const char *cache_directory,
                    void (*progress)(void *, int, int), void *progress_context, Error *error)
{
    if (cache_directory) {
        (void)mkdir(cache_directory, 0777);
    }
    memset(factors, 0, (size_t)n_modules * sizeof *factors);
    Work work = {factors,          model, modules,   n_modules, rank, cache_directory, progress,
                 progress_context, 0,     n_modules, STATUS_OK, {{0}}};
    int blas_threads = svd_begin();
    parallel_for(n_modules, n_threads, work_on_module, &work);
    svd_end(blas_threads);
    if (work.status != STATUS_OK) {
        for (int i = 0; i < n_modules; i++) {
            factors_release(&factors[i]);
        }
        char name[96];
        module_name(name, modules[work.failed].layer, modules[work.failed].role);
        return error_set(error, work.status, "module \"%s\": %s", name, work.error.message);
    }
    return STATUS_OK;
}
