/* A data row, or a conversation, as token ids. Special tokens written in the data stay text; those
 * in the template are parsed. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "core/model.h"
#include "core/status.h"
#include "core/text.h"
#include "rl/chat.h"

typedef struct {
    char *text; /* as rendered, NUL-terminated */
    size_t n_text;
    int32_t *ids; /* (n) starts with the tokenizer's BOS if it has one; under a chat template with
                   * what that writes */
    int n;
} Prompt;

typedef struct PromptTemplate PromptTemplate;

/* text: "plain" (the question verbatim), the name of a chat template, or a text with exactly one
 * "{question}", in UTF-8. The tokenizer must outlive it. Errors: STATUS_USAGE, also for a tokenizer without
 * the chat template's tokens. */
Status prompt_template_new(PromptTemplate **prompt_template, const Model *model, const char *text,
                           Error *error);
void prompt_template_free(PromptTemplate *prompt_template);
/* The token with which a chat template ends an answer; -1 of other templates. */
int32_t prompt_template_turn_end(const PromptTemplate *prompt_template);

Status prompt_encode(Prompt *prompt, const PromptTemplate *prompt_template, const char *question,
                     size_t n_question, Error *error);
/* A conversation up to its next answer; messages: as in chat_render. Without a chat template the
 * last message alone is the question. */
Status prompt_encode_chat(Prompt *prompt, const PromptTemplate *prompt_template,
                          const ChatMessage *messages, int n, Error *error);
/* Ids of the answer as it follows this prompt, then the chat template's end of an answer or the
 * model's end-of-sequence token if it has one: (n) malloc'ed. */
Status prompt_encode_answer(int32_t **ids, int *n, const PromptTemplate *prompt_template,
                            const char *question, size_t n_question, const char *answer,
                            size_t n_answer, Error *error);
void prompt_release(Prompt *prompt);
