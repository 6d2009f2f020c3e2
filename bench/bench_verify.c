/* What checking a file of weights costs: opening a header of many tensors, and SHA-256 of a mapped
 * file. usage: bench_verify [TENSORS [REPEATS [MIB]]] (20000 tensors, 9 times, 1024 MiB) */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/safetensors.h"
#include "core/text.h"

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void require(Status status, const Error *error)
{
    if (status != STATUS_OK) {
        fprintf(stderr, "bench_verify: %s\n", error->message);
        exit(1);
    }
}

/* Names as real models have them, each tensor of `floats` floats, all the same zeros. */
static void write_file(const char *path, int n_tensors, size_t floats)
{
    Tensor *tensors = calloc((size_t)n_tensors, sizeof *tensors);
    char(*names)[96] = calloc((size_t)n_tensors, sizeof *names);
    float *zeros = calloc(floats, sizeof *zeros);
    Error error = {0};
    if (!tensors || !names || !zeros) {
        exit(1);
    }
    for (int i = 0; i < n_tensors; i++) {
        snprintf(names[i], sizeof names[i], "model.layers.%d.mlp.experts.%d.down_proj.weight",
                 i / 256, i % 256);
        tensors[i] = (Tensor){.name = names[i],
                              .type = TENSOR_F32,
                              .type_name = "F32",
                              .n_dims = 2,
                              .dims = {1, floats},
                              .data = zeros,
                              .n_bytes = floats * sizeof *zeros};
    }
    require(safetensors_write(path, tensors, (size_t)n_tensors, NULL, 0, &error), &error);
    free(tensors);
    free(names);
    free(zeros);
}

int main(int argc, char **argv)
{
    int n_tensors = argc > 1 ? atoi(argv[1]) : 20000, repeats = argc > 2 ? atoi(argv[2]) : 9;
    size_t mib = argc > 3 ? (size_t)atoi(argv[3]) : 1024;
    char path[] = "/tmp/tinylora-verify-XXXXXX", hex[SHA256_HEX_SIZE];
    double *seconds = calloc((size_t)repeats, sizeof *seconds);
    SafeTensors *file;
    Error error = {0};
    int fd = mkstemp(path);
    if (!seconds || repeats < 1 || fd < 0) {
        return 1;
    }
    close(fd);
    write_file(path, n_tensors, 4);
    for (int i = 0; i < repeats; i++) {
        double began = now_s();
        require(safetensors_open(&file, path, &error), &error);
        seconds[i] = now_s() - began;
        safetensors_close(file);
    }
    qsort(seconds, (size_t)repeats, sizeof *seconds, by_value);
    printf("structure, %d tensors: best %.2f ms, median %.2f ms\n", n_tensors, seconds[0] * 1e3,
           seconds[repeats / 2] * 1e3);
    write_file(path, 4, mib << 16);
    require(safetensors_open(&file, path, &error), &error);
    for (int i = 0; i < repeats; i++) {
        double began = now_s();
        safetensors_sha256(hex, file);
        seconds[i] = now_s() - began;
    }
    qsort(seconds, (size_t)repeats, sizeof *seconds, by_value);
    double bytes = (double)(mib << 20);
    printf("SHA-256, %zu MiB mapped: best %.2f GB/s, median %.2f GB/s\n", mib,
           bytes / seconds[0] * 1e-9, bytes / seconds[repeats / 2] * 1e-9);
    safetensors_close(file);
    unlink(path);
    free(seconds);
    return 0;
}
