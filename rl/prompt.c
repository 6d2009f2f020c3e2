/* Templates and tokenised prompts. A template is cut once into text, the question, and special
 * tokens; the stretches of text between special tokens are encoded as wholes, so that no token
 * boundary is forced where the question begins. */
#include "rl/prompt.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

typedef enum { PART_TEXT, PART_QUESTION, PART_SPECIAL } PartKind;

typedef struct {
    PartKind kind;
    const char *text; /* into PromptTemplate.text */
    size_t n;
    int32_t id;
} Part;

struct PromptTemplate {
    const Model *model;
    char *text;
    Part *parts; /* (n_parts) */
    int n_parts;
};

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

static Part part_at(const PromptTemplate *made, const char *at, const TokenList *specials)
{
    size_t n_mark = sizeof question_mark - 1;
    if (!strncmp(at, question_mark, n_mark)) {
        return (Part){PART_QUESTION, at, n_mark, -1};
    }
    Part best = {PART_TEXT, at, 1, -1};
    for (size_t i = 0; i < specials->n; i++) {
        const char *token = tokenizer_token(made->model->tokenizer, specials->ids[i]);
        size_t n = strlen(token);
        if (!strncmp(at, token, n) && (best.kind == PART_TEXT || n > best.n)) {
            best = (Part){PART_SPECIAL, at, n, specials->ids[i]};
        }
    }
    return best;
}

static void cut(PromptTemplate *made)
{
    TokenList specials = {0};
    find_specials(&specials, made->model->tokenizer, made->text);
    made->parts = allocate((strlen(made->text) + 1) * sizeof *made->parts);
    for (const char *at = made->text; *at;) {
        Part part = part_at(made, at, &specials);
        Part *last = made->n_parts ? &made->parts[made->n_parts - 1] : NULL;
        if (part.kind == PART_TEXT && last && last->kind == PART_TEXT) {
            last->n++;
        } else {
            made->parts[made->n_parts++] = part;
        }
        at += part.n;
    }
    token_list_release(&specials);
}

Status prompt_template_new(PromptTemplate **prompt_template, const Model *model, const char *text,
                           Error *error)
{
    if (!model->tokenizer) {
        return error_set(error, STATUS_USAGE, "model \"%.500s\" has no tokenizer", model->path);
    }
    if (!strcmp(text, "plain")) {
        text = question_mark;
    }
    const char *mark = strstr(text, question_mark);
    if (!mark || strstr(mark + 1, question_mark)) {
        return error_set(error, STATUS_USAGE,
                         "template \"%.100s\": must be \"plain\" or hold {question} exactly once",
                         text);
    }
    PromptTemplate *made = allocate(sizeof *made);
    *made = (PromptTemplate){.model = model, .text = allocate(strlen(text) + 1)};
    strcpy(made->text, text);
    cut(made);
    *prompt_template = made;
    return STATUS_OK;
}

void prompt_template_free(PromptTemplate *prompt_template)
{
    if (prompt_template) {
        free(prompt_template->text);
        free(prompt_template->parts);
        free(prompt_template);
    }
}

/* The text from part `first` up to the next special token or the end. */
static int render_section(Text *out, const PromptTemplate *made, int first, const char *question,
                          size_t n_question)
{
    int i = first;
    for (; i < made->n_parts && made->parts[i].kind != PART_SPECIAL; i++) {
        const Part *part = &made->parts[i];
        if (part->kind == PART_QUESTION) {
            text_append(out, question, n_question);
        } else {
            text_append(out, part->text, part->n);
        }
    }
    return i;
}

static Status encode_parts(TokenList *ids, const PromptTemplate *made, const char *question,
                           size_t n_question, Error *error)
{
    const Tokenizer *tokenizer = made->model->tokenizer;
    int32_t bos = tokenizer_bos(tokenizer);
    const Part *parts = made->parts;
    if (bos >= 0 && !(parts[0].kind == PART_SPECIAL && parts[0].id == bos)) {
        token_list_add(ids, bos);
    }
    Text section = {0};
    Status status = STATUS_OK;
    for (int i = 0; i < made->n_parts && !status;) {
        if (parts[i].kind == PART_SPECIAL) {
            token_list_add(ids, parts[i++].id);
            continue;
        }
        text_clear(&section);
        i = render_section(&section, made, i, question, n_question);
        if (section.n) {
            status = tokenizer_encode(tokenizer, section.bytes, section.n, 0, ids, error);
        }
    }
    text_release(&section);
    return status;
}

Status prompt_encode(Prompt *prompt, const PromptTemplate *prompt_template, const char *question,
                     size_t n_question, Error *error)
{
    TokenList ids = {0};
    Status status = encode_parts(&ids, prompt_template, question, n_question, error);
    int32_t bos = prompt_template->model->config.bos_id;
    if (!status && !ids.n && bos >= 0) {
        token_list_add(&ids, bos);
    }
    if (!status && !ids.n) {
        status = error_set(error, STATUS_REFUSED, "the prompt has no tokens");
    }
    if (status) {
        token_list_release(&ids);
        return status;
    }
    Text text = {0};
    text_append(&text, "", 0); /* so that bytes is a string even without text */
    for (int i = 0; i < prompt_template->n_parts; i++) {
        const Part *part = &prompt_template->parts[i];
        text_append(&text, part->kind == PART_QUESTION ? question : part->text,
                    part->kind == PART_QUESTION ? n_question : part->n);
    }
    *prompt = (Prompt){.text = text.bytes, .n_text = text.n, .ids = ids.ids, .n = (int)ids.n};
    return STATUS_OK;
}

/* The answer is encoded together with the prompt's last stretch of text when that leaves the
 * prompt's tokens as they are (SentencePiece would put a space before a text of its own), else
 * alone. */
static Status encode_answer(TokenList *ids, const PromptTemplate *made, const char *question,
                            size_t n_question, const char *answer, size_t n_answer, Error *error)
{
    const Tokenizer *tokenizer = made->model->tokenizer;
    int first = made->n_parts;
    while (first && made->parts[first - 1].kind != PART_SPECIAL) {
        first--;
    }
    Text text = {0};
    TokenList alone = {0}, joint = {0};
    render_section(&text, made, first, question, n_question);
    Status status =
        text.n ? tokenizer_encode(tokenizer, text.bytes, text.n, 0, &alone, error) : STATUS_OK;
    text_append(&text, answer, n_answer);
    if (!status && text.n) {
        status = tokenizer_encode(tokenizer, text.bytes, text.n, 0, &joint, error);
    }
    if (!status) {
        bool extends = joint.n >= alone.n &&
                       (!alone.n || !memcmp(joint.ids, alone.ids, alone.n * sizeof *joint.ids));
        if (extends) {
            for (size_t i = alone.n; i < joint.n; i++) {
                token_list_add(ids, joint.ids[i]);
            }
        } else if (n_answer) {
            status = tokenizer_encode(tokenizer, answer, n_answer, 0, ids, error);
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
    Status status =
        encode_answer(&list, prompt_template, question, n_question, answer, n_answer, error);
    if (status) {
        token_list_release(&list);
        return status;
    }
    if (prompt_template->model->config.n_eos) {
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
