/* `replay`: a stored run computed once more from its stored settings and the same files, and held
 * beside what is stored. Nothing is written to results.db. */
#pragma once
#include "experiments/world.h"
#include "results/compare.h"

typedef struct {
    int64_t steps;    /* the first so many; -1: all that are stored */
    double tolerance; /* of numbers; -1: 0, or REPLAY_TOLERANCE where the run was made elsewhere */
} ReplayOptions;

#define REPLAY_TOLERANCE 1e-3

typedef struct {
    char run_id[17];
    int64_t last;     /* step that was compared, after all before it */
    bool ended;       /* and how the run ended */
    double tolerance; /* it was compared with */
    Text
        elsewhere; /* what was another one then: "kernels: avx2 then, avx512 now"; empty: nothing */
    Comparison comparison; /* its difference: the first one */
} Replay;

/* id: a run_id or a unique prefix. store: for reading. A difference is no error. Errors:
 * STATUS_USAGE (no such run; it was not trained here, or its settings are refused now),
 * STATUS_REFUSED naming the file that is another one now, STATUS_STOPPED, STATUS_FAILED. */
Status replay_run(Replay *replay, Store *store, const char *id, const World *world,
                  const ReplayOptions *options, Error *error);
void replay_release(Replay *replay);
