/* What a GGUF file says of a model (llama.cpp: gguf-py/gguf/constants.py): its sizes as a config,
 * its tensors under the names that Hugging Face gives them. Architectures: those of
 * core/architecture.h. */
#pragma once
#include "core/gguf.h"
#include "core/model_config.h"

/* Sizes and settings from the metadata, what the metadata leaves open from the tensors (a tied
 * head, biases, Llama 3's rope_freqs). Numbers that f32 holds inexactly become the decimal that was
 * written: 1e-6, not 9.99999997e-7. Errors: STATUS_REFUSED naming the key and the rule. */
Status gguf_model_config(ModelConfig *config, const Gguf *gguf, Error *error);

/* "blk.3.attn_q.weight" into the name in a safetensors file; false when a model has no such tensor.
 */
bool gguf_tensor_name(char name[128], const char *gguf_name);
/* "attn_q" */
const char *gguf_role_name(Role role);
/* Rows of a head that lie in llama.cpp's order (Tensor.turned): of q and k of some architectures;
 * else 0. */
int gguf_turned(const ModelConfig *config, Role role);
/* tensors: (n) malloc'ed, in order of offset, under their names; names: malloc'ed with them.
 * Errors: STATUS_REFUSED for a tensor that belongs to no model; STATUS_FAILED (memory). */
Status gguf_model_tensors(Tensor **tensors, char (**names)[128], size_t *n, const Gguf *gguf,
                          Error *error);
