/* The tokenizer in a GGUF file's metadata, as the tokenizer.json that Hugging Face has for the same
 * model: one reader, and one set of rules, for both. */
#pragma once
#include "core/gguf.h"
#include "core/text.h"
#include "core/tokenizer.h"

/* Appended to json. Known: tokenizer.ggml.model "gpt2" with a "pre" whose pattern is known (qwen2,
 * llama-bpe, smollm, gpt-2), and "llama": SentencePiece's BPE, whose scores become an order of
 * merges. What the metadata does not keep is as it mostly is: added tokens are looked for in the
 * text as it comes, and take no spaces beside them.
 * Errors: STATUS_REFUSED naming the key and the rule. */
Status tokenizer_gguf_json(Text *json, const Gguf *gguf, Error *error);
/* Read from that. path: for messages. Errors: as tokenizer_open. */
Status tokenizer_of_gguf(Tokenizer **tokenizer, const Gguf *gguf, const char *path, Error *error);
