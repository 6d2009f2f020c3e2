/* Arrays of the metadata, each checked for its kind and length before it is used; then JSON. */
#include "core/tokenizer_gguf.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/tokenizer_private.h"

/* Token types of llama.cpp (enum llama_token_type). */
enum { TYPE_NORMAL = 1, TYPE_UNKNOWN, TYPE_CONTROL, TYPE_USER_DEFINED, TYPE_UNUSED, TYPE_BYTE };

typedef struct {
    const Gguf *gguf;
    GgufString *tokens; /* (n) */
    uint8_t *types;     /* (n) */
    size_t n;
    bool is_llama; /* SentencePiece; else byte-level */
    bool add_bos, add_eos, add_prefix;
    int64_t bos, eos, unknown; /* -1: none */
} Vocabulary;

/* What stands in for a pre-tokenizer's pattern. */
static const struct {
    const char *pre;
    SplitRule rule;
    bool split_pattern; /* a Split by the pattern, else ByteLevel's own */
    bool digits;        /* one by one before it */
    bool nfc, ignore_merges, add_bos;
} pre_tokenizers[] = {
    {"gpt-2", SPLIT_GPT2, false, false, false, false, false},
    {"smollm", SPLIT_GPT2, false, true, false, false, false},
    {"qwen2", SPLIT_QWEN2, true, false, true, false, false},
    {"llama-bpe", SPLIT_LLAMA3, true, false, false, true, true},
    {"llama3", SPLIT_LLAMA3, true, false, false, true, true},
    {"llama-v3", SPLIT_LLAMA3, true, false, false, true, true},
};

static Status wrong_kind(const char *key, const GgufValue *value, const char *expected,
                         Error *error)
{
    return error_set(error, STATUS_REFUSED, "\"%s\" is %s, expected %s", key, gguf_kind_name(value),
                     expected);
}

static int shown(GgufString string)
{
    return utf8_shown(string.bytes, string.n, 60);
}

static bool is_text(GgufString string, const char *text)
{
    return string.n == strlen(text) && memcmp(string.bytes, text, string.n) == 0;
}

/* ---- reading --------------------------------------------------------------------------------- */

static Status read_string(GgufString *out, const Gguf *gguf, const char *key, Error *error)
{
    const GgufValue *value = gguf_find(gguf, key);
    return gguf_string(value, out) ? STATUS_OK : wrong_kind(key, value, "a string", error);
}

/* *out stays when the key is absent. */
static Status read_flag(bool *out, const Gguf *gguf, const char *key, Error *error)
{
    const GgufValue *value = gguf_find(gguf, key);
    return !value || gguf_bool(value, out) ? STATUS_OK : wrong_kind(key, value, "a bool", error);
}

static Status read_id(int64_t *out, const Vocabulary *v, const char *key, Error *error)
{
    const GgufValue *value = gguf_find(v->gguf, key);
    *out = -1;
    if (!value) {
        return STATUS_OK;
    }
    if (!gguf_integer(value, out)) {
        return wrong_kind(key, value, "an integer", error);
    }
    return *out >= 0 && (uint64_t)*out < v->n
               ? STATUS_OK
               : error_set(error, STATUS_REFUSED, "\"%s\" is %lld, ids go from 0 to %zu", key,
                           (long long)*out, v->n - 1);
}

static Status read_tokens(Vocabulary *v, Error *error)
{
    const char *key = "tokenizer.ggml.tokens";
    const GgufValue *value = gguf_find(v->gguf, key);
    if (!value || !value->is_array || value->kind != GGUF_STRING) {
        return wrong_kind(key, value, "an array of string", error);
    }
    if (value->n == 0 || value->n > TOKENIZER_MAX_ID) {
        return error_set(error, STATUS_REFUSED, "\"%s\" has %zu elements, not 1 to %d", key,
                         value->n, TOKENIZER_MAX_ID);
    }
    v->n = value->n;
    v->tokens = calloc(v->n, sizeof *v->tokens);
    v->types = malloc(v->n);
    if (!v->tokens || !v->types) {
        return error_set(error, STATUS_FAILED, "no memory for %zu tokens", v->n);
    }
    memset(v->types, TYPE_NORMAL, v->n);
    GgufCursor cursor = {0};
    for (size_t i = 0; i < v->n; i++) {
        gguf_next_string(value, &cursor, &v->tokens[i]);
    }
    return STATUS_OK;
}

static Status check_length(const Vocabulary *v, const char *key, const GgufValue *value,
                           Error *error)
{
    return value->n == v->n
               ? STATUS_OK
               : error_set(error, STATUS_REFUSED, "\"%s\" has %zu elements for %zu tokens", key,
                           value->n, v->n);
}

/* "<0x0A>" */
static bool is_byte(GgufString token)
{
    static const char digits[] = "0123456789ABCDEFabcdef";
    return token.n == 6 && memcmp(token.bytes, "<0x", 3) == 0 && token.bytes[5] == '>' &&
           memchr(digits, token.bytes[3], sizeof digits - 1) &&
           memchr(digits, token.bytes[4], sizeof digits - 1);
}

static Status read_types(Vocabulary *v, Error *error)
{
    const char *key = "tokenizer.ggml.token_type";
    const GgufValue *value = gguf_find(v->gguf, key);
    int64_t type = 0;
    if (!value) {
        return STATUS_OK;
    }
    if (!value->is_array || (value->kind != GGUF_INT32 && value->kind != GGUF_UINT32)) {
        return wrong_kind(key, value, "an array of i32", error);
    }
    Status status = check_length(v, key, value, error);
    for (size_t i = 0; i < v->n && !status; i++) {
        if (!gguf_integer_at(value, i, &type) || type < TYPE_NORMAL || type > TYPE_BYTE) {
            status = error_set(error, STATUS_REFUSED, "\"%s\": %lld of token %zu is unknown", key,
                               (long long)type, i);
        } else if (type == TYPE_BYTE && !is_byte(v->tokens[i])) {
            status = error_set(error, STATUS_REFUSED,
                               "\"tokenizer.ggml.tokens\": \"%.*s\" (id %zu) is no byte, as its "
                               "type says",
                               shown(v->tokens[i]), v->tokens[i].bytes, i);
        } else {
            v->types[i] = (uint8_t)type;
        }
    }
    return status;
}

/* SentencePiece needs them; elsewhere they say nothing, but a list must fit its tokens. */
static Status check_scores(const Vocabulary *v, Error *error)
{
    const char *key = "tokenizer.ggml.scores";
    const GgufValue *value = gguf_find(v->gguf, key);
    double score = 0;
    if (!value && !v->is_llama) {
        return STATUS_OK;
    }
    if (!value || !value->is_array || value->kind != GGUF_FLOAT32) {
        return wrong_kind(key, value, "an array of f32", error);
    }
    Status status = check_length(v, key, value, error);
    for (size_t i = 0; i < v->n && !status; i++) {
        if (!gguf_float_at(value, i, &score) || !isfinite(score)) {
            status = error_set(error, STATUS_REFUSED, "\"%s\": %g of token %zu", key, score, i);
        }
    }
    return status;
}

static Status read_settings(Vocabulary *v, Error *error)
{
    GgufString model;
    bool separator = false;
    Status status = read_string(&model, v->gguf, "tokenizer.ggml.model", error);
    if (!status && !is_text(model, "gpt2") && !is_text(model, "llama")) {
        status =
            error_set(error, STATUS_REFUSED,
                      "\"tokenizer.ggml.model\" \"%.*s\" is not supported (gpt2 and llama are)",
                      shown(model), model.bytes);
    }
    if (!status && gguf_find(v->gguf, "tokenizer.ggml.precompiled_charsmap")) {
        status = error_set(error, STATUS_REFUSED,
                           "\"tokenizer.ggml.precompiled_charsmap\" is not supported");
    }
    v->is_llama = !status && is_text(model, "llama");
    v->add_bos = v->add_prefix = v->is_llama;
    status = status ? status : read_tokens(v, error);
    status = status ? status : read_types(v, error);
    status = status ? status : check_scores(v, error);
    status = status ? status : read_id(&v->bos, v, "tokenizer.ggml.bos_token_id", error);
    status = status ? status : read_id(&v->eos, v, "tokenizer.ggml.eos_token_id", error);
    status = status ? status : read_id(&v->unknown, v, "tokenizer.ggml.unknown_token_id", error);
    status =
        status ? status : read_flag(&separator, v->gguf, "tokenizer.ggml.add_sep_token", error);
    if (!status && separator) {
        status =
            error_set(error, STATUS_REFUSED, "\"tokenizer.ggml.add_sep_token\" is not supported");
    }
    return status;
}

/* After what the pre-tokenizer does by itself. */
static Status read_flags(Vocabulary *v, Error *error)
{
    Status status = read_flag(&v->add_bos, v->gguf, "tokenizer.ggml.add_bos_token", error);
    status =
        status ? status : read_flag(&v->add_eos, v->gguf, "tokenizer.ggml.add_eos_token", error);
    status = status ? status
                    : read_flag(&v->add_prefix, v->gguf, "tokenizer.ggml.add_space_prefix", error);
    if (!status && ((v->add_bos && v->bos < 0) || (v->add_eos && v->eos < 0))) {
        status = error_set(error, STATUS_REFUSED,
                           "\"tokenizer.ggml.%s_token_id\" is missing, which every text is to have",
                           v->add_bos && v->bos < 0 ? "bos" : "eos");
    }
    return status;
}

/* ---- SentencePiece's merges ------------------------------------------------------------------ */

/* A token is made of any two tokens that its characters divide into. Better scores first; of equal
 * ones those whose left half comes first, then whose right half does: the order that Llama 2's
 * tokenizer.json has (transformers, convert_slow_tokenizer.py, SentencePieceExtractor). */
typedef struct {
    double score;
    int32_t left, right;
} Merge;

static int by_score(const void *a, const void *b)
{
    const Merge *x = a, *y = b;
    if (x->score != y->score) {
        return x->score > y->score ? -1 : 1;
    }
    return x->left != y->left ? (x->left < y->left ? -1 : 1)
                              : (x->right > y->right) - (x->right < y->right);
}

typedef struct {
    GgufString string;
    int32_t id;
} Sorted;

static int compare(GgufString a, GgufString b)
{
    int order = memcmp(a.bytes, b.bytes, a.n < b.n ? a.n : b.n);
    return order ? order : (a.n > b.n) - (a.n < b.n);
}

static int by_string(const void *a, const void *b)
{
    return compare(((const Sorted *)a)->string, ((const Sorted *)b)->string);
}

static int32_t find(const Sorted *sorted, size_t n, const char *bytes, size_t n_bytes)
{
    Sorted key = {{bytes, n_bytes}, 0};
    const Sorted *found = bsearch(&key, sorted, n, sizeof *sorted, by_string);
    return found ? found->id : -1;
}

typedef struct {
    Merge *merges;
    size_t n, capacity;
} MergeList;

static bool add_merge(MergeList *list, Merge merge)
{
    if (list->n == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 1024;
        Merge *merges = realloc(list->merges, capacity * sizeof *merges);
        if (!merges) {
            return false;
        }
        list->merges = merges;
        list->capacity = capacity;
    }
    list->merges[list->n++] = merge;
    return true;
}

/* All merges that make token `id`; a token too long for any vocabulary is left to the reader. */
static bool add_merges(MergeList *list, const Vocabulary *v, const Sorted *sorted, int32_t id,
                       double score)
{
    GgufString token = v->tokens[id];
    bool fits = true;
    for (size_t i = 1; i < token.n && token.n <= TOKENIZER_MAX_ADDED && fits; i++) {
        if (((unsigned char)token.bytes[i] & 0xc0) == 0x80) {
            continue; /* inside a character */
        }
        int32_t left = find(sorted, v->n, token.bytes, i);
        int32_t right = left < 0 ? -1 : find(sorted, v->n, token.bytes + i, token.n - i);
        if (left >= 0 && right >= 0) {
            fits = add_merge(list, (Merge){score, left, right});
        }
    }
    return fits;
}

static Status find_merges(MergeList *list, const Vocabulary *v, Error *error)
{
    const GgufValue *scores = gguf_find(v->gguf, "tokenizer.ggml.scores");
    Sorted *sorted = calloc(v->n, sizeof *sorted);
    bool fits = sorted != NULL;
    for (size_t i = 0; i < v->n && fits; i++) {
        sorted[i] = (Sorted){v->tokens[i], (int32_t)i};
    }
    if (fits) {
        qsort(sorted, v->n, sizeof *sorted, by_string);
    }
    for (size_t i = 0; i < v->n && fits; i++) {
        double score = 0;
        if (v->types[i] == TYPE_NORMAL) {
            gguf_float_at(scores, i, &score);
            fits = add_merges(list, v, sorted, (int32_t)i, score);
        }
    }
    free(sorted);
    if (!fits) {
        return error_set(error, STATUS_FAILED, "no memory for the merges of %zu tokens", v->n);
    }
    if (list->n) {
        qsort(list->merges, list->n, sizeof *list->merges, by_score);
    }
    return STATUS_OK;
}

/* ---- writing --------------------------------------------------------------------------------- */

static void add_string(Text *json, GgufString string)
{
    text_json_string(json, string.bytes, string.n);
}

static void add_added_tokens(Text *json, const Vocabulary *v)
{
    const char *comma = "";
    text_add(json, "\"added_tokens\": [");
    for (size_t i = 0; i < v->n; i++) {
        bool special = v->types[i] == TYPE_CONTROL || v->types[i] == TYPE_UNKNOWN;
        if (special || v->types[i] == TYPE_USER_DEFINED) {
            text_printf(json, "%s{\"id\": %zu, \"content\": ", comma, i);
            add_string(json, v->tokens[i]);
            text_printf(json,
                        ", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, "
                        "\"normalized\": false, \"special\": %s}",
                        special ? "true" : "false");
            comma = ", ";
        }
    }
    text_add(json, "],\n");
}

/* Tokens that fill up a vocabulary are left out. With ignore_merges a piece of text that reads as
 * an added token must not become it. */
static void add_vocab(Text *json, const Vocabulary *v, bool ignore_merges)
{
    const char *comma = "";
    text_add(json, "\"vocab\": {");
    for (size_t i = 0; i < v->n; i++) {
        bool is_added = v->types[i] != TYPE_NORMAL && v->types[i] != TYPE_BYTE;
        if (v->types[i] != TYPE_UNUSED && !(ignore_merges && is_added)) {
            text_add(json, comma);
            add_string(json, v->tokens[i]);
            text_printf(json, ": %zu", i);
            comma = ", ";
        }
    }
    text_add(json, "},\n");
}

/* Byte-level merges are the file's, "a b". */
static Status add_merge_strings(Text *json, const Vocabulary *v, Error *error)
{
    const char *key = "tokenizer.ggml.merges", *comma = "";
    const GgufValue *value = gguf_find(v->gguf, key);
    GgufCursor cursor = {0};
    GgufString merge;
    if (!value || !value->is_array || value->kind != GGUF_STRING) {
        return wrong_kind(key, value, "an array of string", error);
    }
    while (gguf_next_string(value, &cursor, &merge)) {
        text_add(json, comma);
        add_string(json, merge);
        comma = ", ";
    }
    return STATUS_OK;
}

static Status add_merge_pairs(Text *json, const Vocabulary *v, Error *error)
{
    MergeList list = {0};
    Status status = find_merges(&list, v, error);
    for (size_t i = 0; i < list.n && !status; i++) {
        text_add(json, i ? ", [" : "[");
        add_string(json, v->tokens[list.merges[i].left]);
        text_add(json, ", ");
        add_string(json, v->tokens[list.merges[i].right]);
        text_add(json, "]");
    }
    free(list.merges);
    return status;
}

/* What is put before and after every text. */
static void add_post_processor(Text *json, const Vocabulary *v)
{
    if (!v->add_bos && !v->add_eos) {
        return;
    }
    const int64_t ids[2] = {v->add_bos ? v->bos : -1, v->add_eos ? v->eos : -1};
    text_add(json, "\"post_processor\": {\"type\": \"TemplateProcessing\", \"single\": [");
    for (int i = 0; i < 2; i++) {
        if (i == 1) {
            text_add(json, "{\"Sequence\": {\"id\": \"A\", \"type_id\": 0}}");
        }
        if (ids[i] >= 0) {
            text_add(json, i ? ", {\"SpecialToken\": {\"id\": " : "{\"SpecialToken\": {\"id\": ");
            add_string(json, v->tokens[ids[i]]);
            text_add(json, i ? ", \"type_id\": 0}}" : ", \"type_id\": 0}}, ");
        }
    }
    text_add(json, "], \"special_tokens\": {");
    for (int i = 0; i < 2; i++) {
        if (ids[i] >= 0 && !(i == 1 && ids[0] == ids[1])) {
            text_add(json, i && ids[0] >= 0 ? ", " : "");
            add_string(json, v->tokens[ids[i]]);
            text_add(json, ": {\"id\": ");
            add_string(json, v->tokens[ids[i]]);
            text_printf(json, ", \"ids\": [%lld], \"tokens\": [", (long long)ids[i]);
            add_string(json, v->tokens[ids[i]]);
            text_add(json, "]}");
        }
    }
    text_add(json, "}},\n");
}

static Status add_byte_level(Text *json, Vocabulary *v, Error *error)
{
    GgufString pre;
    size_t n = sizeof pre_tokenizers / sizeof *pre_tokenizers, i = 0;
    Status status = read_string(&pre, v->gguf, "tokenizer.ggml.pre", error);
    for (; i < n && !status && !is_text(pre, pre_tokenizers[i].pre); i++) {
    }
    if (!status && i == n) {
        status = error_set(error, STATUS_REFUSED,
                           "\"tokenizer.ggml.pre\" \"%.*s\" is not supported (qwen2, llama-bpe, "
                           "smollm and gpt-2 are)",
                           shown(pre), pre.bytes);
    }
    if (status) {
        return status;
    }
    bool split = pre_tokenizers[i].split_pattern;
    v->add_bos = pre_tokenizers[i].add_bos && v->bos >= 0;
    status = read_flags(v, error);
    if (status) {
        return status;
    }
    text_printf(json, "\"normalizer\": %s,\n",
                pre_tokenizers[i].nfc ? "{\"type\": \"NFC\"}" : "null");
    text_add(json, "\"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [");
    if (pre_tokenizers[i].digits) {
        text_add(json, "{\"type\": \"Digits\", \"individual_digits\": true}, ");
    }
    if (split) {
        const char *pattern = tokenizer_split_pattern(pre_tokenizers[i].rule);
        text_add(json, "{\"type\": \"Split\", \"pattern\": {\"Regex\": ");
        text_json_string(json, pattern, strlen(pattern));
        text_add(json, "}, \"behavior\": \"Isolated\", \"invert\": false}, ");
    }
    text_printf(json,
                "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, \"use_regex\": %s}]},\n",
                split ? "false" : "true");
    text_add(json, "\"decoder\": {\"type\": \"ByteLevel\"},\n");
    add_post_processor(json, v);
    text_printf(json, "\"model\": {\"type\": \"BPE\", \"ignore_merges\": %s,\n",
                pre_tokenizers[i].ignore_merges ? "true" : "false");
    add_vocab(json, v, pre_tokenizers[i].ignore_merges);
    text_add(json, "\"merges\": [");
    return add_merge_strings(json, v, error);
}

static Status add_sentence_piece(Text *json, Vocabulary *v, Error *error)
{
    Status status = read_flags(v, error);
    if (status) {
        return status;
    }
    int64_t unknown = v->unknown >= 0 ? v->unknown : 0; /* llama.cpp's default */
    text_add(json, "\"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [");
    text_add(json, v->add_prefix ? "{\"type\": \"Prepend\", \"prepend\": \"\u2581\"}, " : "");
    text_add(json, "{\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": "
                   "\"\u2581\"}]},\n"
                   "\"decoder\": {\"type\": \"Sequence\", \"decoders\": [{\"type\": \"Replace\", "
                   "\"pattern\": {\"String\": \"\u2581\"}, \"content\": \" \"}, "
                   "{\"type\": \"ByteFallback\"}, {\"type\": \"Fuse\"}");
    text_add(json, v->add_prefix
                       ? ", {\"type\": \"Strip\", \"content\": \" \", \"start\": 1, \"stop\": 0}"
                       : "");
    text_add(json, "]},\n");
    add_post_processor(json, v);
    text_add(json, "\"model\": {\"type\": \"BPE\", \"byte_fallback\": true, \"fuse_unk\": true, "
                   "\"unk_token\": ");
    add_string(json, v->tokens[unknown]);
    text_add(json, ",\n");
    add_vocab(json, v, false);
    text_add(json, "\"merges\": [");
    return add_merge_pairs(json, v, error);
}

Status tokenizer_gguf_json(Text *json, const Gguf *gguf, Error *error)
{
    Vocabulary v = {.gguf = gguf};
    Status status = read_settings(&v, error);
    if (!status) {
        text_add(json, "{\"version\": \"1.0\",\n");
        add_added_tokens(json, &v);
        status = v.is_llama ? add_sentence_piece(json, &v, error) : add_byte_level(json, &v, error);
        text_add(json, "]}}\n");
    }
    free(v.tokens);
    free(v.types);
    return status;
}
