/* A LoRA adapter as a GGUF file (version 3), as llama.cpp's convert_lora_to_gguf.py writes it. */
#pragma once
#include "adapters/adapter.h"

/* W' - W of each module: "blk.N.attn_q.weight.lora_a" (rank, n_in) and ".lora_b" (n_out, rank),
 * f32, adapter.lora.alpha = rank so that llama.cpp's scale is 1. For architecture llama the rows of
 * q and k are permuted as its converter permutes those of the weights. path: must not exist.
 * Errors: STATUS_USAGE (the path; full or none), STATUS_FAILED. */
Status gguf_lora_write(const char *path, const AdapterBank *bank, int adapter, const char *name,
                       Error *error);
