/* What the experiments need of the world outside, handed in by the program: clock, signals,
 * terminal, names. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

typedef struct {
    int n_cells, n_done, n_failed;   /* of the whole sweep */
    int64_t steps_done, steps_total; /* over all cells that are to run */
    int64_t step, steps;             /* of the cells now in the batch */
    int n_fused;                     /* cells in the batch */
    double reward;       /* mean of the last step over the batch (SFT: loss); NaN before */
    const char *measure; /* "reward" or "loss" */
    const char *phase;   /* "rollout", "base", "update", "evaluation", "factors", ... */
    int phase_done, phase_total;
    long tokens; /* of the phase */
    /* Of a scan, where a step is a point and a cell a row (of the whole surface): */
    bool scan;
    int n_others; /* processes at work on it beside this one */
    double best;  /* of the surface's own value so far; NaN before. measure: its name */
} Progress;

typedef struct {
    void *context;
    double (*now_s)(void *context);                            /* since 1970; may jump */
    double (*clock_s)(void *context);                          /* for differences: never jumps */
    bool (*stopping)(void *context);                           /* a signal or the time limit */
    void (*wait)(void *context, double seconds);               /* less when a signal comes */
    void (*note)(void *context, const char *line);             /* something worth a line */
    void (*progress)(void *context, const Progress *progress); /* called often */
    const char *host, *boot_id;
    int64_t pid;
    const char *environment; /* JSON: kernels, threads, versions */
    int n_threads;
    const char *models;     /* folders of embedded models, divided by ':' */
    const char *cache;      /* folder of cached factors; NULL: none */
    struct ModelLock *lock; /* what models must be (model_lock.h); NULL: anything */
} World;
