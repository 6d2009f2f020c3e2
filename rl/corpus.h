/* The text a model is pre-trained on: pages of questions and answers as token ids with a weight
 * each. Read whole; not a dataset of rows (that is rl/dataset.h). */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "core/sha256.h"
#include "core/status.h"
#include "core/text.h"
#include "core/tokenizer.h"

typedef struct {
    int n_pages;
    size_t *first;                /* (n_pages + 1) where each page starts in ids */
    int32_t *ids;                 /* (first[n_pages]) */
    float *weights;               /* (first[n_pages]) of the loss on each token */
    char sha256[SHA256_HEX_SIZE]; /* of the whole file */
} Corpus;

/* path: JSON Lines, each {"page": ["question", "answer", "question", ...]}, an even number of
 * strings. Tokens of questions get question_weight, those of answers 1; each answer is followed by
 * eos_id. Errors: STATUS_REFUSED naming path and line (also a page of more than max_tokens tokens
 * or a file without pages); STATUS_FAILED. */
Status corpus_open(Corpus *corpus, const char *path, const Tokenizer *tokenizer, int32_t eos_id,
                   double question_weight, int max_tokens, Error *error);
void corpus_close(Corpus *corpus);

/* All strings of the file, one after the other: what a tokenizer is trained on. */
Status corpus_text(Text *text, const char *path, Error *error);
