/* results.db and who writes to it (INTERFACE, results.db). A step is one transaction with its
 * metrics, completions and whole checkpoint; what was committed is never lost, doubled or half
 * there. SQL of runs is in store.c and store_evaluation.c, of surfaces (store_surface.h) in
 * store_surface*.c; store_open.c opens, store_lock.c holds the writer's lock, store_check.c checks,
 * query.c and frame.c read for people and figures. Nothing above this folder sees SQLite. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/status.h"
#include "core/text.h"

typedef struct Store Store;

typedef enum {
    STORE_READ,
    STORE_WRITE, /* the writer's lock from open to close */
    STORE_SHARED /* the writer's lock for opening, closing and each call of store_surface.h,
                  * store_experiment and store_artifact alone, so that several processes take turns
                  */
} StoreMode;

/* STORE_WRITE creates the file when it is absent (whole or not at all), migrates an older schema,
 * and holds the writer's lock, a lock on the file "<path>-lock", until store_close (a second writer
 * waits up to wait_ms, then STATUS_FAILED naming the holder's pid and host). STORE_READ never
 * writes, never checkpoints and never waits for the writer. No clock is read here: callers pass
 * times. Not to be carried over a fork. STORE_SHARED is STORE_WRITE by turns: each call waits up to
 * wait_ms for the lock, and fails as the opening does where a STORE_WRITE holds it. Errors:
 * STATUS_REFUSED for a file that is not ours, empty, of a newer schema, or damaged; STATUS_FAILED
 * else. */
Status store_open(Store **store, const char *path, StoreMode mode, int wait_ms, Error *error);
/* A new, empty store that has no file and is gone with its close: as STORE_WRITE. */
Status store_open_memory(Store **store, Error *error);
void store_close(Store *store);
/* Does another process hold the writer's lock now? holder, appended: "pid 12 on host"; may be
 * NULL. Takes nothing. */
bool store_has_writer(const Store *store, Text *holder);
/* On a network file system, where another machine may not see our locks? */
bool store_on_network(const Store *store);
/* The schema version that the file had when it was opened, and the one it has now. */
void store_versions(const Store *store, int *opened, int *current);

/* Asked every few thousand instructions of a query; nonzero ends it with STATUS_STOPPED. NULL:
 * never. */
void store_interrupt(Store *store, int (*stop)(void *), void *context);

/* What `db check` tells: *sound, and one line a finding appended to report: schema, journal, file
 * system, the library and its WAL-reset bug with our answer to it, integrity, foreign keys,
 * checkpoint checksums, what the tables of surfaces promise each other. Reads everything. */
Status store_check(Store *store, bool *sound, Text *report, Error *error);

/* File systems on which WAL's shared memory does not work, by the magic number of statfs(2). */
bool store_is_network_file_system(unsigned long magic);

typedef enum { RUN_WAITING, RUN_RUNNING, RUN_DONE, RUN_FAILED, RUN_CANCELLED } RunState;
const char *run_state_name(RunState state);

typedef struct {
    const char *key;
    const char *value; /* as JSON text */
} Param;

typedef struct {
    const char *run_id; /* 16 hex digits: start of the identity's SHA-256 */
    const char *experiment;
    const char *identity; /* the canonical JSON that was hashed */
    const char *config;   /* resolved config, JSON */
    const char *model;    /* name or path as given */
    const char *method;   /* sft, grpo */
    const char *adapter;  /* tinylora, full, none */
    int64_t budget;       /* trained scalars */
    double lr;
    int64_t seed;
    int64_t steps; /* planned */
    const Param *params;
    size_t n_params;
} RunInfo;

/* Insert the experiment unless it exists. config: frozen JSON. Returns STATUS_OK also when it
 * exists (later configs of the same name are allowed to add runs). */
Status store_experiment(Store *store, const char *name, const char *config, double now_s,
                        Error *error);
/* Insert the run unless it exists (state waiting); out its state and last committed step (-1 when
 * none). */
Status store_run(Store *store, const RunInfo *info, double now_s, RunState *state,
                 int64_t *last_step, Error *error);

/* A process begins to work on a run: state running, a new row in attempt. environment: JSON
 * (kernels, threads, versions). The writer's lock says that whoever worked on the run here
 * before is gone; where locks may not reach other machines (store_on_network), stale_s > 0 refuses
 * (STATUS_FAILED) a run that a process of another host was heard of on within stale_s. 0: the lock
 * is enough. */
typedef struct {
    const char *host;
    int64_t pid;
    const char *boot_id; /* tells a pid of this boot from one of an earlier boot */
    const char *environment;
} Worker;
Status store_attempt_begin(Store *store, const char *run_id, const Worker *worker, double now_s,
                           double stale_s, int64_t *attempt, Error *error);
Status store_attempt_end(Store *store, const char *run_id, int64_t attempt, const char *how,
                         double now_s, Error *error);

typedef struct {
    const char *key;
    double value; /* NaN and infinities are stored as NULL with an event */
} Metric;

typedef struct {
    int64_t prompt_row; /* row of the data file, 0-based */
    int prompt, sample; /* place in the step */
    const char *prompt_text;
    const char *text; /* decoded completion, n_text bytes, stored as BLOB-safe text */
    size_t n_text;
    const int32_t *ids;
    int n_ids;
    const double *logprobs; /* (n_ids) */
    double reward, advantage;
    const char *extracted; /* JSON: what each extractor read; may be NULL */
    const char *finish;    /* "stop" or "length" */
} CompletionRow;

typedef struct {
    const char *kind, *message;
} EventRow;

typedef struct {
    const char *run_id;
    int64_t attempt;
    int64_t step; /* 0: before training; k: after update k */
    const Metric *metrics;
    size_t n_metrics;
    const CompletionRow *completions;
    size_t n_completions;
    const void *checkpoint; /* NULL: this step keeps none */
    size_t checkpoint_bytes;
    int keep_checkpoints; /* 0: keep all; k: delete all but the last k of this run */
    const EventRow *events;
    size_t n_events;
    double now_s; /* also the attempt's heartbeat */
} StepRecord;

/* One transaction for n records (a fused sweep commits its runs' step together). */
Status store_steps(Store *store, const StepRecord *records, size_t n, Error *error);

/* What a run goes on from: the newest checkpoint that its checksum confirms. All rows of later
 * steps (metric, completion, event, evaluation, checkpoint) are deleted. blob: malloc'ed; *step is
 * -1 and *blob NULL where there is none. *damaged: the newest step whose checkpoint was not what
 * its checksum says, and an event tells; -1: none. */
Status store_resume(Store *store, const char *run_id, double now_s, int64_t *step, void **blob,
                    size_t *n_bytes, int64_t *damaged, Error *error);
/* A run that is done and whose newest checkpoint is damaged is waiting again: it goes on from the
 * one before, as any run that was cut off there. */
Status store_reopen_damaged(Store *store, const char *run_id, bool *reopened, Error *error);
/* The newest checkpoint of the run, as store_resume gives it; nothing is deleted. Errors:
 * STATUS_REFUSED when it is damaged. */
Status store_checkpoint(Store *store, const char *run_id, int64_t *step, void **blob,
                        size_t *n_bytes, Error *error);
/* Checkpoint of one step (for replay and figures). */
Status store_checkpoint_at(Store *store, const char *run_id, int64_t step, void **blob,
                           size_t *n_bytes, Error *error);

/* A metric at steps first, first + 1, ...; NaN where there is none. values: (n). */
Status store_metric_values(Store *store, const char *run_id, const char *key, int64_t first, int n,
                           double *values, Error *error);

/* The reason why a run failed or was cancelled becomes an event of its last step too. */
Status store_run_end(Store *store, const char *run_id, RunState state, const char *reason,
                     double objective, double objective_se, double now_s, Error *error);
/* run_id NULL: of no run; step -1: of no step. */
Status store_event(Store *store, const char *run_id, int64_t step, const char *kind,
                   const char *message, double now_s, Error *error);

/* One sampled answer of an evaluation. */
typedef struct {
    const char *run_id; /* as in Evaluation */
    int64_t step, row;  /* row of the data file */
    int sample, n_tokens;
    const char *text; /* completion */
    size_t n_text;
    const char *answer; /* reference */
    const char *finish; /* "stop" or "length" */
} EvalCompletion;

/* Sampled answers of evaluations that have no scores yet, one transaction: what is there is not
 * sampled again when they are cut off and go on. model: of base rows, for people. */
Status store_eval_completions(Store *store, const char *task, const EvalCompletion *completions,
                              size_t n, const char *model, double now_s, Error *error);
/* Tells `take` all that are there of (run, step, task), in order of (row, sample); what it is given
 * lives for the call. Those without `finish`, of older versions, are left out. */
Status store_eval_completions_read(Store *store, const char *run_id, int64_t step, const char *task,
                                   void (*take)(void *context, const EvalCompletion *completion),
                                   void *context, Error *error);

typedef struct {
    int64_t row; /* of the data file */
    int sample;
    const char *text; /* completion; NULL: it is stored, or there is none */
    size_t n_text;
    const char *answer; /* reference */
    const char *extractor;
    const char *extracted;
    bool correct;
    int n_tokens;
    double score; /* where the extractor is "reward" or "nll"; elsewhere 0 or 1 */
    const char *finish;
} EvalSample;

typedef struct {
    const char
        *run_id; /* the run, or "base:<model hash 16>:<task hash>" for the base model's row */
    int64_t step;
    const char *task; /* e.g. "test.jsonl[0:1000] sampled T=1" */
    const char *extractor;
    int64_t n;
    double value, standard_error;
    double base_value;  /* NaN for the base itself */
    double p_value;     /* paired against base; NaN when not computed */
    const char *detail; /* JSON with whatever else (Wilson interval, McNemar counts); may be NULL */
    const char
        *base_run_id;  /* the base's row it was compared with. NULL with a finite base_value: found
                        * by itself,  as the base row of this task and extractor with that value */
    const char *model; /* of a base row, for people; may be NULL */
} Evaluation;

/* Evaluations with their per-row samples, one transaction; replaces an earlier one of the same key.
 * A base row comes before the rows compared with it. Samples belong to the evaluation of their
 * extractor; a call with samples must have one (run_id, step, task). */
Status store_evaluations(Store *store, const Evaluation *evaluations, size_t n_evaluations,
                         const EvalSample *samples, size_t n_samples, double now_s, Error *error);
/* Is it there already? */
Status store_has_evaluation(Store *store, const char *run_id, int64_t step, const char *task,
                            const char *extractor, bool *found,
                            Evaluation *out_numbers /* numbers only; may be NULL */, Error *error);
/* Per-row verdicts of a stored evaluation in order of (row, sample). correct: malloc'ed (n) 0/1. */
Status store_eval_verdicts(Store *store, const char *run_id, int64_t step, const char *task,
                           const char *extractor, uint8_t **correct, size_t *n, Error *error);

/* The same for scores: (n) malloc'ed; NaN where NULL is stored. */
Status store_eval_scores(Store *store, const char *run_id, int64_t step, const char *task,
                         const char *extractor, double **scores, size_t *n, Error *error);

/* What is known of a run (strings malloc'ed in one block, free with free(info->block)). */
typedef struct {
    char *block;
    const char *run_id, *experiment, *config, *model, *method, *adapter;
    RunState state;
    int64_t steps, last_step;
} StoredRun;
/* id: a run_id or a unique prefix of it. STATUS_USAGE when none or several match. */
Status store_find_run(Store *store, const char *id, StoredRun *run, Error *error);
