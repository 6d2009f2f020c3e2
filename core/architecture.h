/* The model families that the engine computes, a row each: all that sets one apart from another is
 * said here, and nowhere else. Llama 2, 3, 3.1 and 3.2, TinyLlama and SmolLM2 are "llama"; Qwen2.5
 * is "qwen2". */
#pragma once
#include <stdbool.h>

typedef enum {
    ARCHITECTURE_LLAMA,
    ARCHITECTURE_QWEN2,
    ARCHITECTURE_QWEN3,
    ARCHITECTURE_MISTRAL,
    N_ARCHITECTURES
} Architecture;

/* Which layers attend to a window, and by which keys of config.json. */
typedef enum {
    WINDOW_NONE,   /* none: a config that asks for one is refused */
    WINDOW_BY_KEY, /* use_sliding_window: layers from max_window_layers on, or layer_types */
    WINDOW_ALWAYS  /* all, unless sliding_window is null */
} WindowRule;

typedef struct {
    const char *model_type, *class_name; /* in config.json */
    const char *gguf;                    /* general.architecture of a GGUF file */
    bool gguf_pairs;   /* llama.cpp turns neighbours of a head, not its halves: rows of q and k lie
                        * in another order there */
    bool always_bias;  /* on q, k and v, whatever the config says */
    bool may_bias;     /* attention_bias: on q, k, v and o */
    bool may_mlp_bias; /* mlp_bias */
    bool qk_norm;      /* heads of q and k are normalised before they are turned */
    WindowRule window;
    int sliding_window; /* what absent keys mean: sliding_window, ... */
    int kv_heads;       /* ... num_key_value_heads, 0: as many as heads, ... */
    int head_dim;       /* ... and head_dim, 0: hidden_size / num_attention_heads */
} ArchitectureRow;

const ArchitectureRow *architecture_row(Architecture architecture);
