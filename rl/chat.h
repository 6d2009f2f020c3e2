/* Conversations as the chat templates of known models write them. A model's own template is a
 * program of strangers: it is never run, only recognised by the hash of its text. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "core/sha256.h"
#include "core/status.h"
#include "core/text.h"

typedef enum { CHAT_SYSTEM, CHAT_USER, CHAT_ASSISTANT } ChatRole;

typedef struct {
    ChatRole role;
    const char *text; /* (n) bytes */
    size_t n;
} ChatMessage;

/* A stretch of a rendered conversation, by the template or out of a message. Special tokens are
 * parsed in the former alone. */
typedef struct {
    const char *text; /* (n) of the template or of a message; not owned */
    size_t n;
    bool of_message;
} ChatPart;

typedef struct {
    ChatPart *parts; /* (n) */
    int n, capacity;
} ChatParts;
void chat_parts_release(ChatParts *parts);
void chat_parts_add(ChatParts *parts, const char *text, size_t n, bool of_message);
/* Appends the whole text to out. */
void chat_parts_text(Text *out, const ChatParts *parts);

typedef struct ChatTemplate {
    const char *name;
    const char *system;        /* its own words: in place of a system message, or before it */
    const char *turn_end;      /* the special token after an answer */
    const char *before_answer; /* text between a prompt and its answer */
    bool drops_thoughts;       /* of earlier answers, up to their last "</think>" */
    const char *sha256[2];     /* of texts of models' templates that render the same; or NULL */
    void (*render)(ChatParts *parts, const struct ChatTemplate *as, const ChatMessage *messages,
                   int n);
} ChatTemplate;

/* "chatml", "qwen2.5", "qwen3", "smollm2", "llama3" (3.1 and 3.2, on 26 Jul 2024) or "llama2"; NULL
 * when it is none of them. */
const ChatTemplate *chat_template_find(const char *name);
/* Their names, divided by ", ". */
const char *chat_template_names(void);

/* Appends the conversation up to where the assistant answers: equal to the model's own template
 * with add_generation_prompt. messages: (n >= 1), at most one CHAT_SYSTEM, first; then CHAT_USER
 * and CHAT_ASSISTANT in turns. They must outlive the parts. */
void chat_render(ChatParts *parts, const ChatTemplate *as, const ChatMessage *messages, int n);

typedef struct {
    char sha256[SHA256_HEX_SIZE]; /* of its text; "": it has none */
    const ChatTemplate *known;    /* that renders the same; NULL */
} ModelChat;
/* The chat template that a model brings: in a directory chat_template.jinja, else in
 * tokenizer_config.json (of several the one named "default"); in a GGUF file its own. Errors:
 * STATUS_REFUSED. */
Status chat_of_model(ModelChat *chat, const char *path, Error *error);
/* Appends a warning where a chat template is used that is not known to be the model's own; nothing
 * for "plain" and texts with {question}. */
void chat_warn(Text *out, const ModelChat *own, const char *used);
