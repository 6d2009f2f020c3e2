/* Makes a small byte-level BPE tokenizer.json from texts. For vocabularies of hundreds to a few
 * thousand tokens: its time grows with vocabulary x distinct words. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "core/status.h"

typedef struct {
    int vocab_size; /* >= 256 + n_special; fewer are made when no pair occurs twice any more */
    const char *const *special_tokens; /* added after the last merge, with the last ids */
    int n_special;
    bool single_digits; /* each digit a piece of its own, as in SmolLM2; else GPT-2's pattern alone
                         */
} TokenizerTraining;

/* Writes path: ids 0 to 255 are the bytes, then one id a merge, then the special tokens. The pair
 * that occurs most often is merged first, among equals the one with the smaller ids: the file is a
 * function of the texts' words and how often each occurs, not of their order.
 * texts: (n_texts) NUL-terminated UTF-8.
 * Errors: STATUS_USAGE for options that cannot be met; STATUS_REFUSED for a text that is not UTF-8
 * or holds a special token as a word; STATUS_FAILED when the file cannot be written. */
Status tokenizer_train(const char *path, const char *const *texts, size_t n_texts,
                       const TokenizerTraining *training, Error *error);
