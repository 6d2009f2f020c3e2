/* Hugging Face PEFT's folders: adapter_config.json and adapter_model.safetensors (PEFT 0.20 and
 * later; its LoRA is older). */
#pragma once
#include "adapters/adapter.h"
#include "core/sha256.h"

#define PEFT_CONFIG_FILE "adapter_config.json"
#define PEFT_WEIGHTS_FILE "adapter_model.safetensors"

/* A folder, which must not exist or be empty, with W' - W of each module as LoRA of the adapter's
 * rank, lora_alpha = r so that PEFT's scale is 1, s in lora_B, f32. base: what PEFT opens as the
 * base model. Errors: STATUS_USAGE (the folder; full or none), STATUS_FAILED. */
Status peft_lora_write(const char *directory, const AdapterBank *bank, int adapter,
                       const char *base, Error *error);

/* The same as PEFT's TinyLoRA: v, P, A and B. sigma sqrt: A = sqrt(S) V^T, B = U sqrt(S), as PEFT
 * splits; left: A = V^T, B = U S, so that P stays what it was. s goes into P. v: (parameters) what
 * adapter 1 was set to; stored as the model sees it. PEFT ties modules in their order, N / G each
 * and the rest to the last group: a plan that is cut otherwise is refused, or untied: every module
 * gets its group's v for itself. Errors: STATUS_USAGE (also another method), STATUS_FAILED. */
Status peft_tinylora_write(const char *directory, const AdapterBank *bank, const float *v,
                           bool untie, const char *base, Error *error);

/* A LoRA for our method lora. */
typedef struct {
    int rank;     /* the largest; smaller ones are filled up with zeros */
    double alpha; /* scale is alpha / rank, or alpha / sqrt(rank) */
    bool rslora;
    double dropout;
    unsigned targets; /* bit per Role; a module of them that the file has not gets B = 0 */
    float *v;         /* (n) in the order of method lora, malloc'ed */
    size_t n;
    char weights_sha256[SHA256_HEX_SIZE]; /* of the base model, where the file says so; else "" */
} PeftAdapter;

/* peft_type LORA, or TINYLORA with its P saved (as A and B R). Errors: STATUS_REFUSED with the
 * file, the tensor or option, and the rule: a module that the model has not, shapes, numbers that
 * are not finite, an option that would change what is computed. */
Status peft_read(PeftAdapter *peft, const char *directory, const ModelConfig *config, Error *error);
