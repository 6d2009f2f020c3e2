/* The table of model families (transformers: modeling_llama, _qwen2, _qwen3, _mistral; llama.cpp:
 * LLM_ARCH_NAMES and the converters' permute). */
#include "core/architecture.h"

static const ArchitectureRow rows[N_ARCHITECTURES] = {
    [ARCHITECTURE_LLAMA] = {.model_type = "llama",
                            .class_name = "LlamaForCausalLM",
                            .gguf = "llama",
                            .gguf_pairs = true,
                            .may_bias = true,
                            .may_mlp_bias = true},
    [ARCHITECTURE_QWEN2] = {.model_type = "qwen2",
                            .class_name = "Qwen2ForCausalLM",
                            .gguf = "qwen2",
                            .always_bias = true,
                            .window = WINDOW_BY_KEY,
                            .sliding_window = 4096,
                            .kv_heads = 32},
    [ARCHITECTURE_QWEN3] = {.model_type = "qwen3",
                            .class_name = "Qwen3ForCausalLM",
                            .gguf = "qwen3",
                            .may_bias = true,
                            .qk_norm = true,
                            .window = WINDOW_BY_KEY,
                            .sliding_window = 4096,
                            .kv_heads = 32,
                            .head_dim = 128},
    [ARCHITECTURE_MISTRAL] = {.model_type = "mistral",
                              .class_name = "MistralForCausalLM",
                              .gguf = "llama",
                              .gguf_pairs = true,
                              .window = WINDOW_ALWAYS,
                              .sliding_window = 4096,
                              .kv_heads = 8},
};

const ArchitectureRow *architecture_row(Architecture architecture)
{
    return &rows[architecture];
}
