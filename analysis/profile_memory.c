/* Where memory goes, from the shapes alone: the largest buffers, not every one of them. */
#include <stdlib.h>

#include "analysis/profile.h"

static void add_layer(MemoryNeeds *needs, const Layer *layer, int rank)
{
    for (int role = 0; role < N_ROLES; role++) {
        const Matrix *w = &layer->weight[role];
        size_t both = (size_t)w->n_out + (size_t)w->n_in;
        needs->packed += matrix_bytes(w);
        needs->plain += layer->bias[role] ? (size_t)w->n_out * sizeof(float) : 0;
        needs->adapter += (size_t)rank * both * sizeof(float);
    }
}

/* Bytes of a token: what waits in all layers, what one layer is computed in where it has no buffers
 * of its own for that, the residual stream's end and gradient. */
static size_t kept_token(const ModelConfig *c, Checkpointing checkpointing, TensorType precision)
{
    size_t L = (size_t)c->n_layers, D = (size_t)c->width, FF = (size_t)c->ff_width;
    size_t Q = (size_t)c->n_heads * (size_t)c->head_dim;
    size_t KV = (size_t)c->n_kv_heads * (size_t)c->head_dim;
    bool rounded = precision != TENSOR_F32, full = checkpointing == CHECKPOINTING_FULL;
    size_t heads = c->qk_norm ? Q + KV : 0;               /* queries and keys before their norms */
    size_t all = 2 * D + 2 * Q + 2 * FF + 2 * KV + heads; /* residuals, q and attention, gate and
                                                           * up, keys and values */
    size_t exact = full                                       ? D
                   : checkpointing == CHECKPOINTING_SELECTIVE ? (rounded ? D : all - 2 * FF)
                   : rounded                                  ? 0
                                                              : all;
    size_t half = full || !rounded                           ? 0
                  : checkpointing == CHECKPOINTING_SELECTIVE ? all - 2 * FF - D
                                                             : all;
    size_t end = !rounded || full ? D : 0, dx = rounded ? D / 2 : D;
    return (L * exact + (all - exact) + end + dx) * sizeof(float) + L * half * sizeof(uint16_t);
}

void profile_memory(MemoryNeeds *needs, const Model *model, int rank, Checkpointing checkpointing,
                    TensorType precision)
{
    const ModelConfig *c = &model->config;
    size_t L = (size_t)c->n_layers, D = (size_t)c->width, FF = (size_t)c->ff_width;
    size_t Q = (size_t)c->n_heads * (size_t)c->head_dim;
    size_t KV = (size_t)c->n_kv_heads * (size_t)c->head_dim;
    *needs = (MemoryNeeds){.packed = matrix_bytes(&model->head)};
    for (size_t i = 0; i < safetensors_count(model->file); i++) {
        size_t n = safetensors_at(model->file, i)->n_bytes;
        needs->mapped = n > needs->mapped ? n : needs->mapped;
    }
    for (int l = 0; l < c->n_layers; l++) {
        add_layer(needs, &model->layers[l], rank);
    }
    needs->plain += (2 * L + 1) * D * sizeof(float);
    size_t layer = 2 * D + 2 * Q + 2 * FF; /* residuals, q and attention, gate and up */
    size_t shared = 2 * D + FF + 2 * KV; /* normed and projected, the MLP's, new keys and values */
    size_t gradients = D + 2 * FF + 2 * Q + 2 * KV; /* beside the residual stream's */
    size_t saved = (size_t)N_ROLES * (size_t)rank;
    needs->cache_token = 2 * L * KV * sizeof(float);
    needs->forward_token = (layer + shared) * sizeof(float);
    needs->training_token =
        (L * saved + shared + gradients) * sizeof(float) + kept_token(c, checkpointing, precision);
    needs->logits_token = (2 * D + (size_t)c->vocab_size) * sizeof(float);
    needs->scalar = 2 * 3 * sizeof(float) + sizeof(double);
}
