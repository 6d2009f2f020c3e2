/* Memory of one pass (private to the engine): one block, cut into buffers, kept from call to call.
 */
#pragma once
#include <stddef.h>

#include "core/pass.h"
#include "core/status.h"

typedef struct {
    char *block;
    size_t capacity, used;
} Workspace;

void workspace_release(Workspace *workspace);
/* Forget all buffers and make room for `bytes` of new ones. */
Status workspace_reset(Workspace *workspace, size_t bytes, Error *error);
/* 64-byte aligned; the room was asked for before. */
void *workspace_take(Workspace *workspace, size_t bytes);

/* Bytes that the row buffers of a pass need, and that its keys and values do, of so many positions.
 * pass has model, hook, n_rows, n_spans, keep, checkpointing, precision set. */
size_t workspace_pass_bytes(const Pass *pass, int weights);
size_t workspace_keys_bytes(const Pass *pass, int capacity);
/* Cut them. */
void workspace_cut_pass(Workspace *workspace, Pass *pass, int weights);
void workspace_cut_keys(Workspace *workspace, const Pass *pass, Span *span);

/* Rotary angles, made for as many positions as were asked for so far. */
typedef struct {
    float *table; /* (n, head_dim): cos of head_dim / 2 angles, then sin */
    int n;
} Rope;

/* Of the first n positions at least. It may move. Errors: STATUS_FAILED (memory). */
Status rope_grow(Rope *rope, const ModelConfig *config, int n, Error *error);
