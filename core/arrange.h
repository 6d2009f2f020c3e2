/* Which sequences of a batch are computed together, and in what order their rows lie (private to
 * the engine). Twins are found and resolved here; the rows themselves are forward.c's and
 * slice.c's. */
#pragma once
#include "core/engine.h"
#include "core/pass.h"

/* A sequence of a chunk. A root and its children ("tree") are consecutive. */
typedef struct {
    int sequence; /* in the batch */
    int root;     /* item that the tree starts with */
    int silent;   /* here because others refer to it: its numbers are handed out elsewhere */
    int source;   /* item whose rows these start from at `layer`, when layer > 0 */
    int layers;   /* that source and this one share */
    int layer;    /* first layer computed for these rows; n_layers: none, they are source's rows */
    int piece;    /* see Pass.n_pieces */
} Item;

typedef struct {
    int scope;  /* of the mark */
    int item;   /* that has ... */
    int layers; /* ... so many layers in common with this sequence */
} Mark;

typedef struct {
    const Batch *batch;
    int n_layers, n_threads;
    const Model *model;
    int max_active, max_rows; /* of a chunk: rows computed, a mean over the layers; all rows */
    int capacity;             /* sequences there is memory for */
    int *order;               /* (n_sequences) families one after the other */
    int *family;              /* (n_sequences) the first sequence that it is linked with */
    int *item_of;             /* (n_sequences) item of those that are in the chunk */
    Mark *marks;              /* (n_sequences) */
    int scope, next;

    Item *items; /* of the chunk, trees in the order of `order` */
    int *rank;   /* (n_items) items in the order of their rows; those without come last */
    int n_items, n_pieces;
} Arrangement;

void arrangement_release(Arrangement *a);
/* For batch; a->model, n_threads and the limits are set. Errors: STATUS_FAILED for memory. */
Status arrangement_begin(Arrangement *a, const Batch *batch, Error *error);
/* Fill items, rank, n_pieces with the next chunk; false when there is none. */
int arrangement_next(Arrangement *a);
