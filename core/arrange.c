
/* Chunks of a batch. Trees that refer to each other (a "family": twins, references) are put side by
 * side; inside a chunk each tree starts from the rows of another one as late as their adapters
 * allow, and rows are sorted by the layer they come in at.
 *
 * Invariants
 * 1. Sequences of a tree start at one layer l; when l > 0 each starts from the rows of a sequence
 * of the same piece that starts below l.
 * 2. Twins are a permission: where the twin is not at hand, another relative of the same chunk
 * stands in for it, sharing the fewer layers of the two; without one the tree is computed whole.
 * 3. A pass with backward (batch->weigh) has one tree after the other, as they come. */
#include "core/arrange.h"

#include <stdlib.h>
#include <string.h>

void arrangement_release(Arrangement *a)
{
    free(a->order);
    free(a->family);
    free(a->item_of);
    free(a->marks);
    free(a->items);
    free(a->rank);
    *a = (Arrangement){0};
}

static Status reserve(Arrangement *a, int n, Error *error)
{
    if (n <= a->capacity) {
        return STATUS_OK;
    }
    size_t count = (size_t)n;
    free(a->order);
    free(a->family);
    free(a->item_of);
    free(a->marks);
    free(a->items);
    free(a->rank);
    a->order = malloc(count * sizeof *a->order);
    a->family = malloc(count * sizeof *a->family);
    a->item_of = malloc(count * sizeof *a->item_of);
    a->marks = calloc(count, sizeof *a->marks);
    a->items = malloc(count * sizeof *a->items);
    a->rank = malloc(count * sizeof *a->rank);
    a->capacity = n;
    a->scope = 0;
    if (!a->order || !a->family || !a->item_of || !a->marks || !a->items || !a->rank) {
        a->capacity = 0;
        return error_set(error, STATUS_FAILED, "out of memory: a batch of %d sequences", n);
    }
    return STATUS_OK;
}

/* ---- families ---- */

static int root_of(const Batch *batch, int i)
{
    int parent = batch->sequences[i].parent;
    return parent >= 0 ? parent : i;
}

static int oldest(const int *family, int i)
{
    while (family[i] != i) {
        i = family[i];
    }
    return i;
}

static void link_to(Arrangement *a, int i, int earlier)
{
    int x = oldest(a->family, root_of(a->batch, i));
    int y = oldest(a->family, root_of(a->batch, earlier));
    a->family[x > y ? x : y] = x > y ? y : x;
}

/* Families in the order of their oldest member; counting sort, so members stay in order. */
static void order_by_family(Arrangement *a)
{
    const Batch *batch = a->batch;
    int n = batch->n_sequences;
    int *start = a->rank; /* as scratch */
    memset(start, 0, (size_t)n * sizeof *start);
    for (int i = 0; i < n; i++) {
        a->family[i] = i;
    }
    for (int i = 0; i < n; i++) {
        const Sequence *s = &batch->sequences[i];
        if (s->twin_layers > 0) {
            link_to(a, i, s->twin);
        }
        if (s->kl) {
            link_to(a, i, s->reference);
        }
    }
    for (int i = 0; i < n; i++) { /* roots come before their children, elders before both */
        a->family[i] = a->family[a->family[root_of(batch, i)]];
        start[a->family[i]]++;
    }
    for (int i = 0, sum = 0; i < n; i++) {
        int count = start[i];
        start[i] = sum;
        sum += count;
    }
    for (int i = 0; i < n; i++) {
        a->order[start[a->family[i]]++] = i;
    }
}

Status arrangement_begin(Arrangement *a, const Batch *batch, Error *error)
{
    int n = batch->n_sequences, linked = 0;
    Status status = reserve(a, n, error);
    if (status != STATUS_OK) {
        return status;
    }
    a->batch = batch;
    a->next = 0;
    for (int i = 0; i < n && !batch->weigh; i++) {
        linked |= batch->sequences[i].twin_layers > 0 || batch->sequences[i].kl != NULL;
    }
    if (linked) {
        order_by_family(a);
    } else {
        for (int i = 0; i < n; i++) {
            a->order[i] = i;
            a->family[i] = root_of(batch, i);
        }
    }
    return STATUS_OK;
}

/* ---- twins ---- */

static void mark(Arrangement *a, int sequence, int item, int layers)
{
    a->marks[sequence] = (Mark){a->scope, item, layers};
}

static int is_present(const Arrangement *a, int sequence)
{
    const Mark *m = &a->marks[sequence];
    return m->scope == a->scope && m->layers > a->n_layers;
}

/* The item of this scope that shares most layers with item i by way of its twins; ancestors that
 * are not here get i as the one to ask instead. */
static void find_source(Arrangement *a, int i)
{
    Item *item = &a->items[i];
    const Sequence *sequences = a->batch->sequences;
    int layers = a->n_layers, at = item->sequence;
    item->source = item->layers = 0;
    while (!a->batch->weigh && sequences[at].twin_layers > 0) {
        layers = sequences[at].twin_layers < layers ? sequences[at].twin_layers : layers;
        at = sequences[at].twin;
        const Mark *m = &a->marks[at];
        if (m->scope == a->scope) {
            item->source = m->item;
            item->layers = m->layers < layers ? m->layers : layers;
            break;
        }
        mark(a, at, i, layers);
    }
    mark(a, item->sequence, i, a->n_layers + 1); /* itself: more than any stand-in */
}

/* First layer of the tree of items first .. last-1, whose sources are known. */
static void place_tree(Arrangement *a, int first, int last)
{
    Item *items = a->items;
    int layer = a->n_layers;
    for (int i = first; i < last; i++) {
        layer = items[i].layers < layer ? items[i].layers : layer;
    }
    for (int i = first; i < last; i++) {
        items[i].layer = layer;
        while (layer > 0 && items[items[i].source].layer >= layer) {
            items[i].source = items[items[i].source].source;
        }
    }
}

static void resolve_tree(Arrangement *a, int first, int last)
{
    for (int i = first; i < last; i++) {
        find_source(a, i);
    }
    place_tree(a, first, last);
}

/* ---- chunks ---- */

/* Items of the tree whose root is sequence r; the children of r follow it in the batch. */
static void add_tree(Arrangement *a, int r, int silent)
{
    int first = a->n_items;
    for (int i = r; i < a->batch->n_sequences && (i == r || a->batch->sequences[i].parent == r);
         i++) {
        a->item_of[i] = a->n_items;
        a->items[a->n_items++] = (Item){.sequence = i, .root = first, .silent = silent};
    }
    resolve_tree(a, first, a->n_items);
}

/* The tree, and before it those that its sequences refer to and that are not here yet. */
static void add_with_references(Arrangement *a, int r)
{
    const Sequence *sequences = a->batch->sequences;
    for (int i = r; i < a->batch->n_sequences && (i == r || sequences[i].parent == r); i++) {
        if (sequences[i].kl && !is_present(a, sequences[i].reference)) {
            add_tree(a, root_of(a->batch, sequences[i].reference), 1);
        }
    }
    add_tree(a, r, 0);
}

/* Layers times rows that items first .. last-1 take, and their rows. */
static double work_of(const Arrangement *a, int first, int last, double *rows)
{
    double work = 0;
    for (int i = first; i < last; i++) {
        int n = a->batch->sequences[a->items[i].sequence].n_tokens;
        work += (double)n * (a->n_layers - a->items[i].layer);
        *rows += a->items[i].layer < a->n_layers ? n : 0;
    }
    return work;
}

/* With a backward, frozen sequences (nothing to differentiate) are kept apart. */
static int is_frozen(const Batch *batch, int i)
{
    return batch->weigh && !batch->weight_gradients && batch->sequences[i].adapter == 0;
}

/* Choose the trees of a chunk. One that is at least half full ends where a family does. */
static void fill(Arrangement *a)
{
    const Batch *batch = a->batch;
    double limit = (double)a->max_active * a->n_layers, work = 0, rows = 0;
    double work_before = 0; /* of families that are whole */
    int first = a->next, family_items = 0, family_next = first;
    a->n_items = 0;
    a->scope++;
    while (a->next < batch->n_sequences) {
        int r = a->order[a->next], n_items = a->n_items;
        if (a->n_items > 0 && is_frozen(batch, r) != is_frozen(batch, a->order[first])) {
            return;
        }
        if (n_items > 0 && a->family[r] != a->family[a->order[a->next - 1]]) {
            family_items = n_items;
            family_next = a->next;
            work_before = work;
        }
        add_with_references(a, r);
        work += work_of(a, n_items, a->n_items, &rows);
        if (n_items > 0 && (work > limit || rows > a->max_rows)) {
            int whole = family_items > 0 && 2 * work_before >= limit;
            a->n_items = whole ? family_items : n_items;
            a->next = whole ? family_next : a->next;
            return;
        }
        for (a->next++;
             a->next < batch->n_sequences && batch->sequences[a->order[a->next]].parent == r;) {
            a->next++;
        }
    }
}

/* Cut the chunk into pieces that threads compute side by side, and find sources inside each. */
static void cut_pieces(Arrangement *a)
{
    double all = 0, rows = 0;
    int shares = 0;
    for (int i = 0; i < a->n_items; i++) {
        shares |= a->items[i].layer > 0;
        a->items[i].piece = 0;
    }
    a->n_pieces = shares;
    work_of(a, 0, a->n_items, &all);
    int target = pass_slice_rows(a->model, (int)all, a->n_threads);
    if (!shares || target == 0) {
        return;
    }
    a->scope++;
    for (int i = 0, last; i < a->n_items; i = last) {
        for (last = i + 1; last < a->n_items && a->items[last].root == i; last++) {
        }
        int same = i > 0 && a->family[a->items[i].sequence] == a->family[a->items[i - 1].sequence];
        if (i > 0 && rows >= (same ? 2 * target : target) && a->n_pieces < PASS_SLICES) {
            a->n_pieces++;
            a->scope++;
            rows = 0;
        }
        resolve_tree(a, i, last);
        for (int k = i; k < last; k++) {
            a->items[k].piece = a->n_pieces - 1;
        }
        work_of(a, i, last, &rows);
    }
}

/* Items by piece and layer; those without rows last. */
static void rank_items(Arrangement *a)
{
    int n = 0;
    for (int first = 0, last; first < a->n_items; first = last) {
        for (last = first; last < a->n_items && a->items[last].piece == a->items[first].piece;) {
            last++;
        }
        for (int layer = 0; layer < a->n_layers; layer++) {
            for (int i = first; i < last; i++) {
                if (a->items[i].layer == layer) {
                    a->rank[n++] = i;
                }
            }
        }
    }
    for (int i = 0; i < a->n_items; i++) {
        if (a->items[i].layer == a->n_layers) {
            a->rank[n++] = i;
        }
    }
}

int arrangement_next(Arrangement *a)
{
    if (a->next >= a->batch->n_sequences) {
        return 0;
    }
    fill(a);
    cut_pieces(a);
    rank_items(a);
    return 1;
}
