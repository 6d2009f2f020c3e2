/* config.json of a model directory, read strictly and range-checked; plus the names and shapes of
 * its tensors. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/architecture.h"
#include "core/safetensors.h"
#include "core/status.h"

enum { MAX_HEAD_DIM = 1024 };

typedef enum { ROPE_PLAIN, ROPE_LINEAR, ROPE_LLAMA3, ROPE_YARN } RopeType;

typedef struct {
    Architecture architecture;
    int n_layers;
    int width;      /* D, hidden_size */
    int n_heads;    /* query heads */
    int n_kv_heads; /* divides n_heads */
    int head_dim;   /* even; hidden_size / n_heads unless given */
    int ff_width;   /* intermediate_size */
    int vocab_size;
    int max_positions;
    double rope_theta;
    RopeType rope_type; /* rope_scaling; what its type does not use is 0. Use rope_frequencies. */
    double rope_factor;
    double rope_low_freq_factor, rope_high_freq_factor;           /* llama3 */
    int rope_original_positions;                                  /* llama3, yarn */
    double rope_beta_fast, rope_beta_slow, rope_attention_factor; /* yarn */
    double rms_eps;
    bool tied_head;      /* lm_head is the embedding */
    bool attention_bias; /* q, k, v biases (Qwen2: always; Llama attention_bias = true also has one
                            on o) */
    bool output_bias;    /* bias on o_proj (Llama with attention_bias) */
    bool mlp_bias;
    bool qk_norm;    /* heads of q and k are normalised before they are turned */
    int window;      /* positions that a token attends to, itself one of them; 0: all before it */
    int window_from; /* the first layer with a window */
    int32_t bos_id;  /* -1 none */
    int32_t eos_ids[8]; /* config.json, then generation_config.json beside it if present */
    int n_eos;
    TensorType dtype;             /* torch_dtype / dtype; what `model random` and pretrain write */
    char sha256[SHA256_HEX_SIZE]; /* of the bytes read: config.json, */
    char generation_sha256[SHA256_HEX_SIZE]; /* and generation_config.json; "" without one */
} ModelConfig;

/* The seven linear layers of a block in named_modules order. */
typedef enum { ROLE_Q, ROLE_K, ROLE_V, ROLE_O, ROLE_GATE, ROLE_UP, ROLE_DOWN, N_ROLES } Role;
const char *role_name(Role role);   /* "q_proj" ... "down_proj" */
const char *role_parent(Role role); /* "self_attn" or "mlp" */
/* Shape of that layer's weight: (out, in). */
void role_shape(const ModelConfig *config, Role role, int *out, int *in);
/* "model.layers.3.self_attn.q_proj" (no suffix) into name. */
void module_name(char name[96], int layer, Role role);

/* path: config.json, or a directory that has one, or a GGUF file. Errors: STATUS_REFUSED naming
 * file, key and rule. */
Status model_config_read(ModelConfig *config, const char *path, Error *error);

/* The first position that a token at `position` attends to. */
static inline int window_start(const ModelConfig *config, int layer, int position)
{
    int hidden = position + 1 - config->window;
    return config->window > 0 && layer >= config->window_from && hidden > 0 ? hidden : 0;
}

/* frequency[i] = theta^(-2i / head_dim), scaled as rope_scaling says, in radians a position;
 * returns what cosines and sines are multiplied by.
 * frequency: (head_dim / 2)        (Su et al. 2021, eq. 15; Peng et al. 2023, YaRN; transformers,
 * modeling_rope_utils) */
double rope_frequencies(double *frequency, const ModelConfig *config);

#define MODEL_GGUF_FILE "model.gguf" /* of a merged model that was made from a GGUF file */

/* A model is a directory in the Hugging Face layout, or one GGUF file, which is all of its files.
 * path: the file that has its weights, model.safetensors or its index. Errors: STATUS_REFUSED when
 * there is neither, or both. */
Status model_weights_path(char path[FILE_PATH_MAX], const char *model, Error *error);
/* That file, opened. */
Status model_weights_open(SafeTensors **file, const char *model, Error *error);
/* path: the file of that name ("tokenizer.json"); of a GGUF file: itself. */
Status model_file_path(char path[FILE_PATH_MAX], const char *model, const char *name, Error *error);

/* The tensors a model of this config must have, in the order Hugging Face writes them. */
typedef struct {
    char name[128];
    int n_dims;
    size_t dims[2];
} TensorSpec;
/* specs: malloc'ed, caller frees. */
size_t model_config_tensors(TensorSpec **specs, const ModelConfig *config);

/* Every tensor present with the right shape and a supported type. Other tensors below "model." or
 * "lm_head." would belong to the model and change it: refused, except rotary inv_freq buffers and,
 * for a tied head, a lm_head.weight of the embedding's type and shape. Tensors outside these names
 * are ignored. */
Status model_config_check(const ModelConfig *config, const SafeTensors *file, Error *error);
/* A lm_head.weight that is there for a tied head has the bytes of the embedding. Reads both. */
Status model_head_check(const ModelConfig *config, const SafeTensors *file, Error *error);
/* No infinity and no NaN in a tensor of one or two dimensions. Errors: STATUS_REFUSED naming it and
 * the element. */
Status model_tensor_check(const Tensor *tensor, int n_threads, Error *error);
/* The same of all of those tensors, and of the head above; reads all of the data once. */
Status model_weights_check(const ModelConfig *config, const SafeTensors *file, Error *error);

/* Write a complete model directory: config.json with these values, model.safetensors holding
 * `weights` (one f32 array per TensorSpec, in that order) rounded to config->dtype. tokenizer_path:
 * copied in as tokenizer.json, may be NULL. A new or empty directory appears whole or not at all;
 * in one that has other files each of the three is replaced atomically, config.json last. */
Status model_directory_write(const char *directory, const ModelConfig *config,
                             const float *const *weights, const char *tokenizer_path, Error *error);
/* `model random`: weights ~ N(0, 0.02) (norms 1, biases N(0, 0.02)), a pure function of (config,
 * seed); streamed, so that a 0.5B model needs little memory. dtype overrides the config's. A
 * tokenizer.json beside config_path is copied. The law: element 8b + j of a tensor is Q[h] * 0.02,
 * h the j-th 16-bit piece (low half first) of Philox block b under the key (random_seed_for(seed,
 * tensor name), RANDOM_WEIGHT), Q[h] the normal quantile of (h + 1/2) / 65536. Errors: STATUS_USAGE
 * when the directory exists and is not empty. */
Status model_random_write(const char *directory, const char *config_path, TensorType dtype,
                          uint64_t seed, Error *error);
