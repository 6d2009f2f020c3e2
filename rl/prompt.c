/* Templates and tokenised prompts. A rendered prompt is cut into text and the special tokens that
 * the template wrote; the stretches of text between them are encoded as wholes, so that no token
 * boundary is forced where the question begins. */
#include "rl/prompt.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/unicode.h"

struct PromptTemplate {
    const Model *model;
    const ChatTemplate *chat; /* NULL: text */
    char *text;               /* holds one {question} */
    TokenList specials;       /* special tokens that the template writes */
    int32_t turn_end;
};

/* A stretch of text, or a special token. */
typedef struct {
    const char *text;
    size_t n;
    int32_t id; /* -1: text */
} Part;

typedef struct {
    Part *parts; /* (n) */
    int n;
} Cut;

static const char question_mark[] = "{question}";

static void *allocate(size_t bytes)
{
    void *memory = malloc(bytes ? bytes : 1);
    if (!memory) {
        abort(); /* as Text: sizes follow from text already in memory */
    }
    return memory;
}

/* A special token is one that is an id of its own only when special tokens are parsed. */
static bool is_special(const Tokenizer *tokenizer, int32_t id, const char *token)
{
    TokenList parsed = {0}, plain = {0};
    Error ignored;
    size_t n = strlen(token);
    bool special =
        tokenizer_encode(tokenizer, token, n, TOKENIZER_PARSE_SPECIAL, &parsed, &ignored) == 0 &&
        parsed.n == 1 && parsed.ids[0] == id;
    if (special && tokenizer_encode(tokenizer, token, n, 0, &plain, &ignored) == 0) {
        special = plain.n != 1 || plain.ids[0] != id;
    }
    token_list_release(&parsed);
    token_list_release(&plain);
    return special;
}

/* Special tokens that occur in the template, longest first where several begin. */
static void find_specials(TokenList *specials, const Tokenizer *tokenizer, const char *text)
{
    for (int32_t id = 0; id < tokenizer_size(tokenizer); id++) {
        const char *token = tokenizer_token(tokenizer, id);
        if (token && *token && strstr(text, token) && is_special(tokenizer, id, token)) {
            token_list_add(specials, id);
        }
    }
}

/* The longest special token that begins here, or one byte of text. */
static Part part_at(const PromptTemplate *made, const char *at, size_t n_left)
{
    Part best = {at, 1, -1};
    for (size_t i = 0; i < made->specials.n; i++) {
        const char *token = tokenizer_token(made->model->tokenizer, made->specials.ids[i]);
        size_t n = strlen(token);
        if (n <= n_left && !memcmp(at, token, n) && (best.id < 0 || n > best.n)) {
            best = (Part){at, n, made->specials.ids[i]};
        }
    }
    return best;
}

static Cut cut(const PromptTemplate *made, const ChatParts *rendered)
{
    size_t most = 1;
    for (int i = 0; i < rendered->n; i++) {
        most += rendered->parts[i].of_message ? 1 : rendered->parts[i].n;
    }
    Cut out = {.parts = allocate(most * sizeof *out.parts)};
    for (int i = 0; i < rendered->n; i++) {
        const ChatPart *from = &rendered->parts[i];
        if (from->of_message) {
            out.parts[out.n++] = (Part){from->text, from->n, -1};
            continue;
        }
        bool opened = false; /* the last part is text of this stretch */
        for (size_t at = 0; at < from->n;) {
            Part part = part_at(made, from->text + at, from->n - at);
            at += part.n;
            if (part.id < 0 && opened) {
                out.parts[out.n - 1].n++;
            } else {
                out.parts[out.n++] = part;
            }
            opened = part.id < 0;
        }
    }
    return out;
}

static void render(ChatParts *parts, const PromptTemplate *made, const ChatMessage *messages, int n)
{
    if (made->chat) {
        chat_render(parts, made->chat, messages, n);
        return;
    }
    const char *mark = strstr(made->text, question_mark);
    const char *after = mark + sizeof question_mark - 1;
    chat_parts_add(parts, made->text, (size_t)(mark - made->text), false);
    chat_parts_add(parts, messages[n - 1].text, messages[n - 1].n, true);
    chat_parts_add(parts, after, strlen(after), false);
}

/* All that the template may write. */
static void own_text(Text *out, const PromptTemplate *made)
{
    static const ChatMessage empty[] = {
        {CHAT_SYSTEM, "", 0}, {CHAT_USER, "", 0}, {CHAT_ASSISTANT, "", 0}, {CHAT_USER, "", 0}};
    ChatParts parts = {0};
    render(&parts, made, empty, 4);
    chat_parts_text(out, &parts);
    chat_parts_release(&parts);
}

Status prompt_template_new(PromptTemplate **prompt_template, const Model *model, const char *text,
                           Error *error)
{
    if (!model->tokenizer) {
        return error_set(error, STATUS_USAGE, "model \"%.500s\" has no tokenizer", model->path);
    }
    const ChatTemplate *chat = chat_template_find(text);
    if (!strcmp(text, "plain") || chat) {
        text = question_mark;
    }
    const char *mark = strstr(text, question_mark);
    if (!mark || strstr(mark + 1, question_mark)) {
        return error_set(error, STATUS_USAGE,
                         "template \"%.100s\": must be plain, %s, or hold {question} exactly once",
                         text, chat_template_names());
    }
    if (utf8_valid_prefix(text, strlen(text)) != strlen(text)) {
        return error_set(error, STATUS_USAGE, "template \"%.100s\": is not UTF-8", text);
    }
    int32_t turn_end = chat ? tokenizer_id(model->tokenizer, chat->turn_end) : -1;
    if (chat && turn_end < 0) {
        return error_set(error, STATUS_USAGE,
                         "template \"%s\": the model's tokenizer has no token \"%s\"", chat->name,
                         chat->turn_end);
    }
    PromptTemplate *made = allocate(sizeof *made);
    *made = (PromptTemplate){.model = model, .chat = chat, .turn_end = turn_end};
    made->text = allocate(strlen(text) + 1);
    strcpy(made->text, text);
    Text own = {0};
    own_text(&own, made);
    find_specials(&made->specials, model->tokenizer, text_string(&own));
    text_release(&own);
    *prompt_template = made;
    return STATUS_OK;
}

void prompt_template_free(PromptTemplate *prompt_template)
{
    if (prompt_template) {
        free(prompt_template->text);
        token_list_release(&prompt_template->specials);
        free(prompt_template);
    }
}

int32_t prompt_template_turn_end(const PromptTemplate *prompt_template)
{
    return prompt_template->turn_end;
}

/* The text from part `first` up to the next special token or the end. */
static int section_text(Text *out, const Cut *prompt, int first)
{
    int i = first;
    for (; i < prompt->n && prompt->parts[i].id < 0; i++) {
        text_append(out, prompt->parts[i].text, prompt->parts[i].n);
    }
    return i;
}

/* A tokenizer may treat the very beginning of a text in its own way. */
static unsigned flags_after(int first)
{
    return first ? TOKENIZER_INSIDE : 0;
}

static Status encode_parts(TokenList *ids, const PromptTemplate *made, const Cut *prompt,
                           Error *error)
{
    const Tokenizer *tokenizer = made->model->tokenizer;
    int32_t bos = made->chat ? -1 : tokenizer_bos(tokenizer);
    const Part *parts = prompt->parts;
    if (bos >= 0 && !(prompt->n && parts[0].id == bos)) {
        token_list_add(ids, bos);
    }
    Text section = {0};
    Status status = STATUS_OK;
    for (int i = 0; i < prompt->n && !status;) {
        if (parts[i].id >= 0) {
            token_list_add(ids, parts[i++].id);
            continue;
        }
        text_clear(&section);
        unsigned flags = flags_after(i);
        i = section_text(&section, prompt, i);
        if (section.n) {
            status = tokenizer_encode(tokenizer, section.bytes, section.n, flags, ids, error);
        }
    }
    text_release(&section);
    return status;
}

Status prompt_encode_chat(Prompt *prompt, const PromptTemplate *prompt_template,
                          const ChatMessage *messages, int n, Error *error)
{
    TokenList ids = {0};
    ChatParts rendered = {0};
    render(&rendered, prompt_template, messages, n);
    Cut parts = cut(prompt_template, &rendered);
    Status status = encode_parts(&ids, prompt_template, &parts, error);
    free(parts.parts);
    int32_t bos = prompt_template->model->config.bos_id;
    if (!status && !ids.n && bos >= 0) {
        token_list_add(&ids, bos);
    }
    if (!status && !ids.n) {
        status = error_set(error, STATUS_REFUSED, "the prompt has no tokens");
    }
    if (status) {
        token_list_release(&ids);
    } else {
        Text text = {0};
        text_append(&text, "", 0); /* so that bytes is a string even without text */
        chat_parts_text(&text, &rendered);
        *prompt = (Prompt){.text = text.bytes, .n_text = text.n, .ids = ids.ids, .n = (int)ids.n};
    }
    chat_parts_release(&rendered);
    return status;
}

Status prompt_encode(Prompt *prompt, const PromptTemplate *prompt_template, const char *question,
                     size_t n_question, Error *error)
{
    ChatMessage message = {CHAT_USER, question, n_question};
    return prompt_encode_chat(prompt, prompt_template, &message, 1, error);
}

/* The answer is encoded together with the prompt's last stretch of text when that leaves the
 * prompt's tokens as they are (SentencePiece would put a space before a text of its own), else
 * alone. */
static Status encode_answer(TokenList *ids, const PromptTemplate *made, const Cut *prompt,
                            const char *answer, size_t n_answer, Error *error)
{
    const Tokenizer *tokenizer = made->model->tokenizer;
    int first = prompt->n;
    while (first && prompt->parts[first - 1].id < 0) {
        first--;
    }
    unsigned flags = flags_after(first);
    Text text = {0};
    TokenList alone = {0}, joint = {0};
    section_text(&text, prompt, first);
    Status status =
        text.n ? tokenizer_encode(tokenizer, text.bytes, text.n, flags, &alone, error) : STATUS_OK;
    size_t n_prompt = text.n;
    text_add(&text, made->chat ? made->chat->before_answer : "");
    text_append(&text, answer, n_answer);
    if (!status && text.n) {
        status = tokenizer_encode(tokenizer, text.bytes, text.n, flags, &joint, error);
    }
    if (!status) {
        bool extends = joint.n >= alone.n &&
                       (!alone.n || !memcmp(joint.ids, alone.ids, alone.n * sizeof *joint.ids));
        if (extends) {
            for (size_t i = alone.n; i < joint.n; i++) {
                token_list_add(ids, joint.ids[i]);
            }
        } else if (text.n > n_prompt) {
            status = tokenizer_encode(tokenizer, text.bytes + n_prompt, text.n - n_prompt, 0, ids,
                                      error);
        }
    }
    token_list_release(&alone);
    token_list_release(&joint);
    text_release(&text);
    return status;
}

Status prompt_encode_answer(int32_t **ids, int *n, const PromptTemplate *prompt_template,
                            const char *question, size_t n_question, const char *answer,
                            size_t n_answer, Error *error)
{
    TokenList list = {0};
    ChatMessage message = {CHAT_USER, question, n_question};
    ChatParts rendered = {0};
    render(&rendered, prompt_template, &message, 1);
    Cut parts = cut(prompt_template, &rendered);
    Status status = encode_answer(&list, prompt_template, &parts, answer, n_answer, error);
    free(parts.parts);
    chat_parts_release(&rendered);
    if (status) {
        token_list_release(&list);
        return status;
    }
    if (prompt_template->turn_end >= 0) {
        token_list_add(&list, prompt_template->turn_end);
    } else if (prompt_template->model->config.n_eos) {
        token_list_add(&list, prompt_template->model->config.eos_ids[0]);
    }
    *ids = list.ids;
    *n = (int)list.n;
    return STATUS_OK;
}

void prompt_release(Prompt *prompt)
{
    free(prompt->text);
    free(prompt->ids);
    *prompt = (Prompt){0};
}
