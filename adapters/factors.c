/* Factors of all modules of a model: from the disk where they are kept, else computed, each thread
 * its own module.
 *
 * The cache is a convenience that is never trusted: a file that is absent, short, of another key or
 * with a wrong checksum is as good as none. */
#include "adapters/factors.h"

#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/blas.h"
#include "core/file.h"
#include "core/parallel.h"

#define ALGORITHM "tinylora-factors-2" /* change when other bits come out of the same weights */
enum { START_SEED = 0, KEY_SIZE = 256 };

static Status check_rank(int rank, int n_out, int n_in, Error *error)
{
    int most = n_out < n_in ? n_out : n_in;
    return rank >= 1 && rank <= most
               ? STATUS_OK
               : error_set(error, STATUS_USAGE,
                           "rank %d of a %d x %d matrix: from 1 to %d are possible", rank, n_out,
                           n_in, most);
}

Status factors_compute(Factors *out, const Weight *w, int rank, uint64_t seed, const SvdStop *stop,
                       Error *error)
{
    Status status = check_rank(rank, w->n_out, w->n_in, error);
    if (status != STATUS_OK) {
        return status;
    }
    size_t n = (size_t)w->n_out * w->n_in, bad = tensor_find_nonfinite(w->data, w->type, n);
    if (bad < n) {
        return error_set(error, STATUS_REFUSED, "weight (%zu, %zu) is infinite or not a number",
                         bad / (size_t)w->n_in, bad % (size_t)w->n_in);
    }
    Factors f = {.n_out = w->n_out, .n_in = w->n_in, .rank = rank};
    f.u = malloc((size_t)rank * f.n_out * sizeof *f.u);
    f.s = malloc((size_t)rank * sizeof *f.s);
    f.v = malloc((size_t)rank * f.n_in * sizeof *f.v);
    status = f.u && f.s && f.v
                 ? svd_top(f.u, f.s, f.v, w, rank, seed, stop, error)
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

/* -- the cache --------------------------------------------------------------------------------- */

/* What the factors are a function of. */
static void make_key(char key[KEY_SIZE], const Weight *w, int rank)
{
    char hash[SHA256_HEX_SIZE];
    sha256_bytes(hash, w->data, (size_t)w->n_out * w->n_in * tensor_type_size(w->type));
    snprintf(key, KEY_SIZE, "%s %s %s %s %dx%d rank %d\n", ALGORITHM, blas_core_name(), hash,
             tensor_type_name(w->type), w->n_out, w->n_in, rank);
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

static Status cache_write(const Factors *f, const char *directory, const char *key, Error *error)
{
    char path[FILE_PATH_MAX];
    Status status = cache_path(path, directory, key);
    size_t body = body_size(key, f->n_out, f->n_in, f->rank);
    char *bytes = malloc(body + SHA256_HEX_SIZE);
    if (bytes == NULL || status != STATUS_OK) {
        free(bytes);
        return error_set(error, STATUS_FAILED, "%s: no memory or too long a path", directory);
    }
    size_t n_u = (size_t)f->rank * f->n_out * sizeof(float), n_s = (size_t)f->rank * sizeof(float);
    char *to = bytes + strlen(key);
    memcpy(bytes, key, strlen(key)); /* NOLINT(bugprone-not-null-terminated-result): of a file */
    memcpy(to, f->u, n_u);
    memcpy(to + n_u, f->s, n_s);
    memcpy(to + n_u + n_s, f->v, (size_t)f->rank * f->n_in * sizeof(float));
    sha256_bytes(bytes + body, bytes, body);
    status = file_write(path, bytes, body + SHA256_HEX_SIZE - 1, error);
    free(bytes);
    return status;
}

/* -- modules divided among threads ------------------------------------------------------------- */

typedef struct {
    FactorsStream job;
    const int *order; /* (n_modules) in which they are worked on; NULL: as they are */
    Factors *kept;    /* NULL: each is released once it is finished */
    int failed;       /* the first in that order, whoever was faster; n_modules: none */
    bool stopped;
    Status status;
    Error error;
} Work;

static const Tensor *tensor_of(const FactorsStream *job, int module)
{
    char name[128];
    module_name(name, job->modules[module].layer, job->modules[module].role);
    strcat(name, ".weight");
    const Tensor *tensor = safetensors_find(job->file, name);
    assert(tensor); /* model_config_check saw it */
    return tensor;
}

static Status find_factors(Factors *out, bool *cached, const Work *work, int module, Error *error)
{
    const FactorsStream *job = &work->job;
    const Tensor *tensor = tensor_of(job, module);
    Tensor plain;
    void *owned = NULL;
    Status status = tensor_plain(&plain, &owned, tensor, error);
    if (status != STATUS_OK) {
        return status;
    }
    Weight w = {.data = plain.data, .type = plain.type};
    SvdStop stop = {job->stopping, job->context};
    char key[KEY_SIZE];
    role_shape(job->config, job->modules[module].role, &w.n_out, &w.n_in);
    if (job->cache_directory) {
        make_key(key, &w, job->rank);
        *cached = cache_read(out, job->cache_directory, key, w.n_out, w.n_in, job->rank);
    }
    if (!*cached) {
        status = factors_compute(out, &w, job->rank, START_SEED, &stop, error);
    }
    free(owned);
    safetensors_forget(job->file, tensor);
    if (status == STATUS_OK && !*cached && job->cache_directory) {
        /* Those that are used now need no disk. */
        status = cache_write(out, job->cache_directory, key, error);
        status = work->kept ? STATUS_OK : status;
        if (status != STATUS_OK) {
            factors_release(out);
        }
    }
    return status;
}

static void work_on_module(void *context, int i, int thread)
{
    (void)thread;
    Work *work = context;
    const FactorsStream *job = &work->job;
    int module = work->order ? work->order[i] : i;
    bool go, cached = false;
    Factors factors;
    Error error = {{0}};
#pragma omp critical(adapters_factors)
    {
        work->stopped = work->stopped || (job->stopping && job->stopping(job->context));
        go = !work->stopped && i < work->failed;
        if (go && job->started) {
            job->started(job->context, module);
        }
    }
    if (!go) {
        return;
    }
    Status status = find_factors(&factors, &cached, work, module, &error);
#pragma omp critical(adapters_factors)
    {
        if (status == STATUS_OK && job->finished) {
            job->finished(job->context, module, &factors, cached);
        } else if (status == STATUS_STOPPED) {
            work->stopped = true;
        } else if (status != STATUS_OK && i < work->failed) {
            work->failed = i;
            work->status = status;
            work->error = error;
        }
    }
    if (status == STATUS_OK && work->kept) {
        work->kept[module] = factors;
    } else if (status == STATUS_OK) {
        factors_release(&factors);
    }
}

static Status name_module(const FactorsStream *job, int module, Status status, Error *error)
{
    char name[96];
    module_name(name, job->modules[module].layer, job->modules[module].role);
    return error_context(error, status, "module \"%s\"", name);
}

static Status run(Work *work, Error *error)
{
    const FactorsStream *job = &work->job;
    for (int i = 0; i < job->n_modules; i++) {
        int n_out, n_in;
        role_shape(job->config, job->modules[i].role, &n_out, &n_in);
        Status status = check_rank(job->rank, n_out, n_in, error);
        if (status != STATUS_OK) {
            return name_module(job, i, status, error);
        }
    }
    work->failed = job->n_modules;
    int blas_threads = svd_begin();
    parallel_for(job->n_modules, job->n_threads, work_on_module, work);
    svd_end(blas_threads);
    if (work->status != STATUS_OK) {
        if (error) {
            *error = work->error;
        }
        return name_module(job, work->order ? work->order[work->failed] : work->failed,
                           work->status, error);
    }
    return work->stopped ? error_set(error, STATUS_STOPPED, "stopped") : STATUS_OK;
}

typedef struct {
    void (*call)(void *, int, int);
    void *context;
    int n_done, n_modules;
} Count;

static void count_finished(void *context, int module, const Factors *factors, bool cached)
{
    (void)module;
    (void)factors;
    (void)cached;
    Count *count = context;
    count->n_done++;
    if (count->call) {
        count->call(count->context, count->n_done, count->n_modules);
    }
}

Status factors_open(Factors *factors, const Model *model, const Module *modules, int n_modules,
                    int rank, int n_threads, const char *cache_directory,
                    void (*progress)(void *, int, int), void *progress_context, Error *error)
{
    Count count = {progress, progress_context, 0, n_modules};
    Work work = {.job = {.file = model->file,
                         .config = &model->config,
                         .modules = modules,
                         .n_modules = n_modules,
                         .rank = rank,
                         .n_threads = n_threads,
                         .cache_directory = cache_directory,
                         .finished = count_finished,
                         .context = &count},
                 .kept = factors};
    memset(factors, 0, (size_t)n_modules * sizeof *factors);
    if (cache_directory) {
        (void)directory_make(cache_directory, NULL);
    }
    Status status = run(&work, error);
    for (int i = 0; status != STATUS_OK && i < n_modules; i++) {
        factors_release(&factors[i]);
    }
    return status;
}

typedef struct {
    uintptr_t address;
    int module;
} Place;

static int by_address(const void *a, const void *b)
{
    const Place *left = a, *right = b;
    return (left->address > right->address) - (left->address < right->address);
}

/* The modules in the order of their weights in the file or in each of its shards. */
static Status order_by_place(int *order, const FactorsStream *job, Error *error)
{
    Place *places = malloc(((size_t)job->n_modules + 1) * sizeof *places);
    if (places == NULL) {
        return error_set(error, STATUS_FAILED, "no memory for %d modules", job->n_modules);
    }
    for (int i = 0; i < job->n_modules; i++) {
        places[i] = (Place){(uintptr_t)tensor_of(job, i)->data, i};
    }
    qsort(places, (size_t)job->n_modules, sizeof *places, by_address);
    for (int i = 0; i < job->n_modules; i++) {
        order[i] = places[i].module;
    }
    free(places);
    return STATUS_OK;
}

Status factors_stream(const FactorsStream *stream, Error *error)
{
    int *order = malloc(((size_t)stream->n_modules + 1) * sizeof *order);
    if (order == NULL) {
        return error_set(error, STATUS_FAILED, "no memory for %d modules", stream->n_modules);
    }
    Work work = {.job = *stream, .order = order};
    Status status = order_by_place(order, stream, error);
    status = status ? status : directory_make(stream->cache_directory, error);
    status = status ? status : run(&work, error);
    free(order);
    return status;
}
