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

/* Bytes that the row buffers of a pass need. */
size_t workspace_pass_bytes(const Model *model, const LinearHook *hook, int n_rows, int n_spans,
                            int keep, int weights);
/* Cut them; pass has model, hook, n_rows, n_spans, keep set. */
void workspace_cut_pass(Workspace *workspace, Pass *pass, int weights);

/* cos and sin of every position: (max_positions, head_dim). NULL without memory. */
float *rope_table(const ModelConfig *config);
