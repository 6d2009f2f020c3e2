/* The forward pass of every family in double precision, naive loops and nothing else: the judge of the
 * engine.
 *
 *     Reference *r = reference_open(model);              copies every weight of the model's file
 * into double double *w = reference_tensor(r, name, &n);         read or move single weights
 * (central differences) reference_logits(r, tokens, T, logits);            (T, V)
 *     reference_score(r, tokens, T, 1.0, logprobs, entropies);   entropies may be NULL
 *     reference_free(r);
 *
 * A child with a parent is scored as parent's tokens followed by its own. tests/reference_adapter.h
 * puts TinyLoRA's update, with v in double, into the weights. */
#pragma once
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/model.h"

typedef struct Reference {
    ModelConfig config;
    TensorSpec *specs; /* (n) */
    double **values;   /* (n) the weights in use, row-major, n_values[i] each */
    double **pristine; /* (n) as in the file */
    size_t *n_values;
    size_t n;
    /* Adds an adapter to a layer's output for the token at t, which no change of the weights can
     * express (dropout); NULL: none. What the token is: its sequence's key, the first n_before
     * tokens are its parent's. */
    void (*add)(const struct Reference *r, int layer, Role role, int t, double *y, const double *x);
    void *context;
    uint64_t key, parent_key;
    int n_before;
} Reference;

static inline Reference *reference_open(const Model *model)
{
    Reference *r = calloc(1, sizeof *r);
    r->config = model->config;
    r->n = model_config_tensors(&r->specs, &r->config);
    r->values = calloc(r->n, sizeof *r->values);
    r->pristine = calloc(r->n, sizeof *r->pristine);
    r->n_values = calloc(r->n, sizeof *r->n_values);
    for (size_t i = 0; i < r->n; i++) {
        const Tensor *tensor = safetensors_find(model->file, r->specs[i].name);
        if (tensor == NULL) {
            fprintf(stderr, "reference: no tensor \"%s\"\n", r->specs[i].name);
            abort();
        }
        size_t n = r->specs[i].dims[0] * (r->specs[i].n_dims > 1 ? r->specs[i].dims[1] : 1);
        float *narrow = malloc(n * sizeof *narrow);
        tensor_to_f32(narrow, tensor->data, tensor->type, n);
        r->n_values[i] = n;
        r->values[i] = malloc(n * sizeof **r->values);
        r->pristine[i] = malloc(n * sizeof **r->pristine);
        for (size_t e = 0; e < n; e++) {
            r->values[i][e] = r->pristine[i][e] = (double)narrow[e];
        }
        free(narrow);
    }
    return r;
}

static inline void reference_free(Reference *r)
{
    for (size_t i = 0; i < r->n; i++) {
        free(r->values[i]);
        free(r->pristine[i]);
    }
    free(r->values);
    free(r->pristine);
    free(r->n_values);
    free(r->specs);
    free(r);
}

/* The weights of the file again. */
static inline void reference_reset(Reference *r)
{
    for (size_t i = 0; i < r->n; i++) {
        memcpy(r->values[i], r->pristine[i], r->n_values[i] * sizeof **r->values);
    }
}

/* NULL when the model has no such tensor; n may be NULL. */
static inline double *reference_tensor(const Reference *r, const char *name, size_t *n)
{
    for (size_t i = 0; i < r->n; i++) {
        if (strcmp(r->specs[i].name, name) == 0) {
            if (n) {
                *n = r->n_values[i];
            }
            return r->values[i];
        }
    }
    return NULL;
}

/* "model.layers.<layer>.<rest>"; NULL when absent. */
static inline double *reference_layer_tensor(const Reference *r, int layer, const char *rest)
{
    char name[160];
    snprintf(name, sizeof name, "model.layers.%d.%s", layer, rest);
    return reference_tensor(r, name, NULL);
}

/* y (n_out) = W x + bias; bias may be NULL. */
static inline void reference_linear(double *y, const double *w, const double *bias, const double *x,
                                    int n_out, int n_in)
{
    for (int o = 0; o < n_out; o++) {
        double sum = bias ? bias[o] : 0;
        for (int i = 0; i < n_in; i++) {
            sum += w[(size_t)o * n_in + i] * x[i];
        }
        y[o] = sum;
    }
}

static inline void reference_module(const Reference *r, int layer, Role role, int t, double *y,
                                    const double *x)
{
    char name[96], full[128];
    int n_out, n_in;
    role_shape(&r->config, role, &n_out, &n_in);
    module_name(name, layer, role);
    snprintf(full, sizeof full, "%s.weight", name);
    const double *w = reference_tensor(r, full, NULL);
    snprintf(full, sizeof full, "%s.bias", name);
    reference_linear(y, w, reference_tensor(r, full, NULL), x, n_out, n_in);
    if (r->add) {
        r->add(r, layer, role, t, y, x);
    }
}

static inline void reference_norm(double *y, const double *x, const double *g, int n, double eps)
{
    double sum = 0;
    for (int i = 0; i < n; i++) {
        sum += x[i] * x[i];
    }
    for (int i = 0; i < n; i++) {
        y[i] = x[i] / sqrt(sum / n + eps) * g[i];
    }
}

/* Rotate the halves of one head (the convention of Hugging Face). */
static inline void reference_rotate(double *head, const ModelConfig *c, int position)
{
    double frequencies[MAX_HEAD_DIM / 2], scale = rope_frequencies(frequencies, c);
    int half = c->head_dim / 2;
    for (int i = 0; i < half; i++) {
        double angle = position * frequencies[i], a = head[i], b = head[i + half];
        head[i] = scale * (a * cos(angle) - b * sin(angle));
        head[i + half] = scale * (b * cos(angle) + a * sin(angle));
    }
}

/* The heads of a row of q or k, normalised by `norm` unless NULL, and turned. */
static inline void reference_heads(double *row, const double *norm, int n_heads,
                                   const ModelConfig *c, int position)
{
    for (int h = 0; h < n_heads; h++) {
        double *head = row + h * c->head_dim;
        if (norm) {
            reference_norm(head, head, norm, c->head_dim, c->rms_eps);
        }
        reference_rotate(head, c, position);
    }
}

/* out (T, heads * head_dim): causal attention of q over k, v of the `window` last positions, 0 for
 * all of them. */
static inline void reference_attention(double *out, const double *q, const double *k,
                                       const double *v, const ModelConfig *c, int T, int window)
{
    int d = c->head_dim, q_width = c->n_heads * d, kv_width = c->n_kv_heads * d;
    double *p = malloc((size_t)T * sizeof *p);
    for (int h = 0; h < c->n_heads; h++) {
        int kv = h / (c->n_heads / c->n_kv_heads);
        for (int t = 0; t < T; t++) {
            double largest = -INFINITY, total = 0;
            int first = window > 0 && t - window + 1 > 0 ? t - window + 1 : 0;
            for (int s = first; s <= t; s++) {
                p[s] = 0;
                for (int i = 0; i < d; i++) {
                    p[s] +=
                        q[(size_t)t * q_width + h * d + i] * k[(size_t)s * kv_width + kv * d + i];
                }
                p[s] /= sqrt((double)d);
                largest = fmax(largest, p[s]);
            }
            for (int s = first; s <= t; s++) {
                total += p[s] = exp(p[s] - largest);
            }
            for (int i = 0; i < d; i++) {
                double sum = 0;
                for (int s = first; s <= t; s++) {
                    sum += p[s] / total * v[(size_t)s * kv_width + kv * d + i];
                }
                out[(size_t)t * q_width + h * d + i] = sum;
            }
        }
    }
    free(p);
}

/* x (T, D) += attention block, then MLP block, of one layer. */
static inline void reference_layer(const Reference *r, int layer, double *x, int T)
{
    const ModelConfig *c = &r->config;
    int D = c->width, F = c->ff_width, Q = c->n_heads * c->head_dim,
        K = c->n_kv_heads * c->head_dim;
    double *normed = malloc((size_t)D * sizeof *normed), *out = malloc((size_t)D * sizeof *out);
    double *q = malloc((size_t)T * Q * sizeof *q), *mixed = malloc((size_t)T * Q * sizeof *mixed);
    double *k = malloc((size_t)T * K * sizeof *k), *v = malloc((size_t)T * K * sizeof *v);
    double *gate = malloc((size_t)F * sizeof *gate), *up = malloc((size_t)F * sizeof *up);
    for (int t = 0; t < T; t++) {
        double *q_row = q + (size_t)t * Q, *k_row = k + (size_t)t * K;
        reference_norm(normed, x + (size_t)t * D,
                       reference_layer_tensor(r, layer, "input_layernorm.weight"), D, c->rms_eps);
        reference_module(r, layer, ROLE_Q, t, q_row, normed);
        reference_module(r, layer, ROLE_K, t, k_row, normed);
        reference_module(r, layer, ROLE_V, t, v + (size_t)t * K, normed);
        reference_heads(q_row, reference_layer_tensor(r, layer, "self_attn.q_norm.weight"),
                        c->n_heads, c, t);
        reference_heads(k_row, reference_layer_tensor(r, layer, "self_attn.k_norm.weight"),
                        c->n_kv_heads, c, t);
    }
    reference_attention(mixed, q, k, v, c, T, layer >= c->window_from ? c->window : 0);
    for (int t = 0; t < T; t++) {
        double *row = x + (size_t)t * D;
        reference_module(r, layer, ROLE_O, t, out, mixed + (size_t)t * Q);
        for (int i = 0; i < D; i++) {
            row[i] += out[i];
        }
        reference_norm(normed, row,
                       reference_layer_tensor(r, layer, "post_attention_layernorm.weight"), D,
                       c->rms_eps);
        reference_module(r, layer, ROLE_GATE, t, gate, normed);
        reference_module(r, layer, ROLE_UP, t, up, normed);
        for (int i = 0; i < F; i++) {
            gate[i] = gate[i] / (1 + exp(-gate[i])) * up[i];
        }
        reference_module(r, layer, ROLE_DOWN, t, out, gate);
        for (int i = 0; i < D; i++) {
            row[i] += out[i];
        }
    }
    free(normed);
    free(out);
    free(q);
    free(mixed);
    free(k);
    free(v);
    free(gate);
    free(up);
}

/* logits: (T, V)   tokens: (T) */
static inline void reference_logits(const Reference *r, const int32_t *tokens, int T,
                                    double *logits)
{
    const ModelConfig *c = &r->config;
    int D = c->width;
    const double *embedding = reference_tensor(r, "model.embed_tokens.weight", NULL);
    const double *head = c->tied_head ? embedding : reference_tensor(r, "lm_head.weight", NULL);
    const double *norm = reference_tensor(r, "model.norm.weight", NULL);
    double *x = malloc((size_t)T * D * sizeof *x), *last = malloc((size_t)D * sizeof *last);
    for (int t = 0; t < T; t++) {
        memcpy(x + (size_t)t * D, embedding + (size_t)tokens[t] * D, (size_t)D * sizeof *x);
    }
    for (int layer = 0; layer < c->n_layers; layer++) {
        reference_layer(r, layer, x, T);
    }
    for (int t = 0; t < T; t++) {
        reference_norm(last, x + (size_t)t * D, norm, D, c->rms_eps);
        reference_linear(logits + (size_t)t * c->vocab_size, head, NULL, last, c->vocab_size, D);
    }
    free(x);
    free(last);
}

/* logprobs[t] = log p(tokens[t] | tokens before t), entropies[t] that distribution's entropy in
 * nats, both under softmax(logits / temperature); [0] is NaN. logprobs: (T)   entropies: (T) or
 * NULL   tokens: (T) */
static inline void reference_score(const Reference *r, const int32_t *tokens, int T,
                                   double temperature, double *logprobs, double *entropies)
{
    int V = r->config.vocab_size;
    double *logits = malloc((size_t)T * V * sizeof *logits);
    reference_logits(r, tokens, T, logits);
    logprobs[0] = NAN;
    if (entropies) {
        entropies[0] = NAN;
    }
    for (int t = 1; t < T; t++) {
        double *row = logits + (size_t)(t - 1) * V, largest = -INFINITY, total = 0, mean = 0;
        for (int i = 0; i < V; i++) {
            row[i] /= temperature;
            largest = fmax(largest, row[i]);
        }
        for (int i = 0; i < V; i++) {
            total += exp(row[i] - largest);
        }
        double log_total = largest + log(total);
        for (int i = 0; i < V; i++) {
            mean += exp(row[i] - log_total) * row[i];
        }
        logprobs[t] = row[tokens[t]] - log_total;
        if (entropies) {
            entropies[t] = log_total - mean;
        }
    }
    free(logits);
}
