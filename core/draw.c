/* The ranking is a heap sort of the ids: no library order to depend on. */
#include "core/draw.h"

/* Sort candidates by falling logit, then rising id: a heap sort of the ids, no library order to
 * depend on. */
static int comes_before(const float *logits, int32_t a, int32_t b)
{
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
}

static void sift(int32_t *heap, int n, int i, const float *logits)
{
    for (;;) {
        int largest = i, left = 2 * i + 1, right = left + 1;
        if (left < n && comes_before(logits, heap[left], heap[largest])) {
            largest = left;
        }
        if (right < n && comes_before(logits, heap[right], heap[largest])) {
            largest = right;
        }
        if (largest == i) {
            return;
        }
        int32_t swap = heap[i];
        heap[i] = heap[largest];
        heap[largest] = swap;
        i = largest;
    }
}

int32_t draw_restricted(const DrawLimits *limits, const float *logits, const float *e,
                        int32_t *order, int V, double u)
{
    for (int i = 0; i < V; i++) {
        order[i] = i;
    }
    for (int i = V / 2 - 1; i >= 0; i--) {
        sift(order, V, i, logits);
    }
    int keep = limits->top_k > 0 && limits->top_k < V ? limits->top_k : V, n = V;
    double total = 0;
    /* Popping moves the next best to the end of the array: order[V - 1], order[V - 2], ... */
    double mass = 0;
    if (keep == V) {
        for (int i = 0; i < V; i++) {
            mass += (double)e[i];
        }
    }
    for (int k = 0; k < keep; k++) {
        int32_t best = order[0];
        order[0] = order[--n];
        order[n] = best;
        sift(order, n, 0, logits);
        total += (double)e[best];
        if (keep == V && total >= (double)limits->top_p * mass) {
            keep = k + 1;
        }
    }
    if (limits->top_k > 0 && limits->top_p < 1.0f) { /* the mass that counts is that of the top_k */
        double reached = 0, wanted = (double)limits->top_p * total;
        for (int k = 0; k < keep; k++) {
            reached += (double)e[order[V - 1 - k]];
            if (reached >= wanted) {
                keep = k + 1;
                total = reached;
                break;
            }
        }
    }
    if (limits->min_p > 0) {
        double least = (double)limits->min_p * (double)e[order[V - 1]];
        total = 0;
        for (int k = 0; k < keep; k++) {
            if ((double)e[order[V - 1 - k]] < least) {
                keep = k;
                break;
            }
            total += (double)e[order[V - 1 - k]];
        }
    }
    double target = u * total, sum = 0;
    for (int k = 0; k < keep; k++) {
        sum += (double)e[order[V - 1 - k]];
        if (sum > target) {
            return order[V - 1 - k];
        }
    }
    return order[V - keep];
}

int32_t draw_any(const float *e, int V, double u)
{
    double mass = 0;
    for (int v = 0; v < V; v++) {
        mass += (double)e[v];
    }
    double target = u * mass, reached = 0;
    int32_t last = 0;
    for (int i = 0; i < V; i++) {
        reached += (double)e[i];
        if (e[i] > 0) {
            last = i;
        }
        if (reached > target) {
            return i;
        }
    }
    return last; /* rounding at the far end */
}

int32_t draw_largest(const float *logits, int V)
{
    int32_t best = 0;
    for (int i = 1; i < V; i++) {
        if (logits[i] > logits[best]) {
            best = i;
        }
    }
    return best;
}

void draw_penalize(float *penalized, const float *logits, const int32_t *ids, int n, float penalty)
{
    for (int i = 0; i < n; i++) {
        float logit = logits[ids[i]];
        penalized[ids[i]] = logit > 0 ? logit / penalty : logit * penalty;
    }
}
