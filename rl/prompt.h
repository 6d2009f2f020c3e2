/* A data row as token ids, made once. Special tokens written in the data stay text; those in the
 * template are parsed. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "core/model.h"
#include "core/status.h"
#include "core/text.h"

typedef struct {
    char *text; /* as rendered, NUL-terminated */
    size_t n_text;
    int32_t *ids; /* (n) starts with the tokenizer's BOS if it has one */
    int n;
} Prompt;

typedef struct PromptTemplate PromptTemplate;

/* text: "plain" (the question verbatim) or a text with exactly one "{question}". The tokenizer must
 * outlive it. Errors: STATUS_USAGE. */
Status prompt_template_new(PromptTemplate **prompt_template, const Model *model, const char *text,
                           Error *error);
void prompt_template_free(PromptTemplate *prompt_template);

Status prompt_encode(Prompt *prompt, const PromptTemplate *prompt_template, const char *question,
                     size_t n_question, Error *error);
/* Ids of the answer as it follows this prompt, then the model's end-of-sequence token if it has
 * one: (n) malloc'ed. */
Status prompt_encode_answer(int32_t **ids, int *n, const PromptTemplate *prompt_template,
                            const char *question, size_t n_question, const char *answer,
                            size_t n_answer, Error *error);
void prompt_release(Prompt *prompt);
