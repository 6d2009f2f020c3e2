/* What `watch` knows at one moment, and how it is said. */
#pragma once
#include "results/frame.h"
#include "results/query.h"

typedef enum {
    PULSE_ALIVE,
    PULSE_SILENT, /* of another host, not heard of for long */
    PULSE_LOST    /* certainly gone */
} Pulse;

typedef struct {
    double at_s;       /* since 1970 */
    Frame experiments; /* with running runs: how many are in which state */
    Frame runs;        /* run_progress of the running ones */
    Pulse *run_pulse;  /* (runs.n_rows) */
    Frame surfaces;    /* surface_progress of the running ones */
    int *n_processes;  /* (surfaces.n_rows) alive */
    Text writer;       /* who holds the writer's lock: "pid 12 on host" */
    bool running;      /* somebody works */
} Watched;

/* watched: zeroed; watch_release also after an error. here: this machine. */
Status watch_read(Watched *watched, Store *store, const Worker *here, double now_s, Error *error);
/* For people, lines without anything that harms a terminal; or one JSON object and a newline. */
void watch_print(const Watched *watched, const char *db, bool json, Text *out);
void watch_release(Watched *watched);
