/* From nothing to the first token, files in the page cache: bench_load MODEL THREADS REPEATS. Each
 * repeat is a process of its own. Prints best and median milliseconds of opening the tokenizer
 * alone, until the model is ready, until the first greedy token after a prompt of 16; then MiB
 * resident when ready and at the first token. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/engine.h"
#include "core/file.h"
#include "core/generate.h"

enum { N_FIGURES = 5, PROMPT = 16, MAX_REPEATS = 100 };

static void give_up(const char *message)
{
    fprintf(stderr, "bench_load: %s\n", message);
    exit(1);
}

static void check(Status status, const Error *error)
{
    if (status != STATUS_OK) {
        give_up(error->message);
    }
}

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

static double resident_mib(void)
{
    long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file || fscanf(file, "%*d %ld", &pages) != 1) {
        give_up("/proc/self/statm cannot be read");
    }
    fclose(file);
    return (double)pages * (double)sysconf(_SC_PAGESIZE) / 0x1p20;
}

static void load(double *figures, const char *directory, int n_threads)
{
    Tokenizer *tokenizer;
    Model *model;
    Engine *engine;
    Error error;
    char path[FILE_PATH_MAX];
    int32_t prompt[PROMPT];
    check(model_file_path(path, directory, "tokenizer.json", &error), &error);
    double start = now_ms();
    if (file_exists(path)) {
        check(tokenizer_open(&tokenizer, path, &error), &error);
        figures[0] = now_ms() - start;
        tokenizer_free(tokenizer);
    }
    start = now_ms();
    check(model_open(&model, directory, n_threads, &error), &error);
    check(engine_new(&engine, model, n_threads, 0, &error), &error);
    figures[1] = now_ms() - start;
    figures[3] = resident_mib();
    for (int i = 0; i < PROMPT; i++) {
        prompt[i] = (i + 1) * 37 % model->config.vocab_size;
    }
    Completion completion;
    const GenerateRequest request = {.prompt = prompt, .n_prompt = PROMPT, .max_new = 1};
    const GenerateOptions options = {.n_stop = 0};
    check(generate(engine, NULL, &request, 1, &options, &completion, &error), &error);
    figures[2] = now_ms() - start;
    figures[4] = resident_mib();
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    static const char *const names[N_FIGURES] = {"tokenizer ms", "ready ms", "first token ms",
                                                 "ready MiB", "first token MiB"};
    static double all[N_FIGURES][MAX_REPEATS];
    int repeats = argc == 4 ? atoi(argv[3]) : 0;
    if (repeats < 1 || repeats > MAX_REPEATS || atoi(argv[2]) < 1) {
        give_up("usage: bench_load MODEL THREADS REPEATS, at most 100 repeats");
    }
    for (int i = 0; i < repeats; i++) {
        double figures[N_FIGURES] = {0};
        int ends[2], told;
        if (pipe(ends)) {
            give_up("no pipe");
        }
        pid_t child = fork();
        if (child == 0) {
            load(figures, argv[1], atoi(argv[2]));
            _exit(write(ends[1], figures, sizeof figures) != (ssize_t)sizeof figures);
        }
        if (child < 0 || waitpid(child, &told, 0) < 0 || told ||
            read(ends[0], figures, sizeof figures) != (ssize_t)sizeof figures) {
            give_up("a repeat failed");
        }
        close(ends[0]);
        close(ends[1]);
        for (int f = 0; f < N_FIGURES; f++) {
            all[f][i] = figures[f];
        }
    }
    for (int f = 0; f < N_FIGURES; f++) {
        qsort(all[f], (size_t)repeats, sizeof all[f][0], compare);
        printf("%-16s best %8.1f  median %8.1f\n", names[f], all[f][0], all[f][repeats / 2]);
    }
    return 0;
}
