/* tokenizer.json into a Tokenizer: vocabulary and merges, with every rule that a hostile file might
 * break checked on the way (reference: reliability, section 4). */
#include "core/tokenizer_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/block.h"

static int shown(const char *s)
{
    return utf8_shown(s, strlen(s), 60);
}

/* ---- model: its settings ------------------------------------------------------------------- */

static Status check_unset(const Json *model, const char *key, Error *error)
{
    size_t n;
    const Json *value = json_get(model, key);
    const char *string = json_string(value, &n);
    if (json_kind(value) != JSON_NULL && !(string && n == 0)) {
        return error_set(error, STATUS_REFUSED,
                         "model.%s is not supported; it must be null or \"\"", key);
    }
    return STATUS_OK;
}

static Status load_settings(Tokenizer *tokenizer, const Json *root, Error *error)
{
    const Json *model = json_get(root, "model");
    const char *version = json_string(json_get(root, "version"), NULL);
    const char *type = json_string(json_get(model, "type"), NULL);
    if (!version || strcmp(version, "1.0") != 0) {
        return error_set(error, STATUS_REFUSED, "version is \"%.*s\", expected \"1.0\"",
                         shown(version ? version : ""), version ? version : "");
    }
    if (json_kind(model) != JSON_OBJECT) {
        return error_set(error, STATUS_REFUSED, "model is %s, expected an object",
                         json_kind_name(json_kind(model)));
    }
    /* Files from before the key was written have vocab and merges as only BPE has. */
    bool is_old = json_kind(json_get(model, "type")) == JSON_NULL && json_get(model, "merges");
    if (!is_old && !(type && strcmp(type, "BPE") == 0)) {
        return error_set(error, STATUS_REFUSED, "model.type is \"%.*s\"; only BPE is supported",
                         shown(type ? type : ""), type ? type : "");
    }
    const Json *dropout = json_get(model, "dropout");
    double p = 0;
    if (json_kind(dropout) != JSON_NULL && (!json_double(dropout, &p) || p != 0)) {
        return error_set(error, STATUS_REFUSED,
                         "model.dropout must be null or 0: with dropout the ids would be random");
    }
    Status status = check_unset(model, "continuing_subword_prefix", error);
    status = status ? status : check_unset(model, "end_of_word_suffix", error);
    status =
        status ? status
               : tokenizer_flag(&tokenizer->fuse_unknown, model, "fuse_unk", false, "model", error);
    status = status ? status
                    : tokenizer_flag(&tokenizer->byte_fallback, model, "byte_fallback", false,
                                     "model", error);
    status = status ? status
                    : tokenizer_flag(&tokenizer->ignore_merges, model, "ignore_merges", false,
                                     "model", error);
    return status;
}

/* ---- model: vocabulary --------------------------------------------------------------------- */

static Status check_id(int32_t *id, const Json *value, const char *token, Error *error)
{
    int64_t wide;
    if (!json_int64(value, &wide) || wide < 0 || wide > TOKENIZER_MAX_ID) {
        return error_set(error, STATUS_REFUSED,
                         "model.vocab: id of \"%.*s\" is not an integer from 0 to %d", shown(token),
                         token, TOKENIZER_MAX_ID);
    }
    *id = (int32_t)wide;
    return STATUS_OK;
}

/* Largest id of the vocabulary and the added tokens. Ill-typed added tokens are refused later. */
static Status count_ids(Tokenizer *tokenizer, const Json *vocab, const Json *added, Error *error)
{
    int32_t largest = -1, id = -1;
    for (size_t i = 0; i < json_size(vocab); i++) {
        Status status = check_id(&id, json_at(vocab, i), json_key(vocab, i), error);
        if (status) {
            return status;
        }
        largest = id > largest ? id : largest;
    }
    for (size_t i = 0; i < json_size(added); i++) {
        int64_t wide;
        if (json_int64(json_get(json_at(added, i), "id"), &wide) && wide <= TOKENIZER_MAX_ID &&
            wide > largest) {
            largest = (int32_t)wide;
        }
    }
    tokenizer->n_ids = largest + 1;
    return STATUS_OK;
}

static size_t table_size(size_t n)
{
    size_t slots = 16;
    while (slots < 2 * n) {
        slots *= 2;
    }
    return slots;
}

static Status make_tables(Tokenizer *tokenizer, size_t n_merges, Error *error)
{
    size_t n = (size_t)tokenizer->n_ids;
    tokenizer->n_vocab_slots = table_size(tokenizer->n_vocab);
    tokenizer->n_merge_slots = table_size(n_merges);
    tokenizer->flags = calloc(n, 1);
    tokenizer->written = calloc(n, sizeof(Span));
    tokenizer->decoded = calloc(n, sizeof(Span));
    tokenizer->vocab = block_new(tokenizer->n_vocab_slots * sizeof(VocabSlot));
    tokenizer->merges = block_new(tokenizer->n_merge_slots * sizeof(MergeSlot));
    if (!tokenizer->flags || !tokenizer->written || !tokenizer->decoded || !tokenizer->vocab ||
        !tokenizer->merges) {
        return error_set(error, STATUS_FAILED, "no memory for %zu ids and %zu merges", n, n_merges);
    }
    for (size_t i = 0; i < tokenizer->n_vocab_slots; i++) {
        tokenizer->vocab[i] = (VocabSlot){.id = -1};
    }
    for (size_t i = 0; i < tokenizer->n_merge_slots; i++) {
        tokenizer->merges[i] = (MergeSlot){-1, -1, -1, -1};
    }
    return STATUS_OK;
}

static Status load_token(Tokenizer *tokenizer, const char *token, int32_t id, Error *error)
{
    size_t n = strlen(token);
    if (n == 0) {
        return error_set(error, STATUS_REFUSED, "model.vocab: id %d is an empty token", id);
    }
    if (n > TOKENIZER_MAX_TOKEN) {
        return error_set(error, STATUS_REFUSED,
                         "model.vocab: the token of id %d has %zu bytes; %d "
                         "are allowed",
                         id, n, TOKENIZER_MAX_TOKEN);
    }
    if (strstr(token, "\xc0\x80")) {
        return error_set(error, STATUS_REFUSED, "model.vocab: the token of id %d contains NUL", id);
    }
    if (tokenizer->flags[id] & TOKEN_EXISTS) {
        return error_set(error, STATUS_REFUSED, "model.vocab: \"%.*s\" and \"%.*s\" share id %d",
                         shown(tokenizer->bytes.bytes + tokenizer->written[id].at),
                         tokenizer->bytes.bytes + tokenizer->written[id].at, shown(token), token,
                         id);
    }
    tokenizer->flags[id] = TOKEN_EXISTS;
    tokenizer->written[id] = (Span){(uint32_t)tokenizer->bytes.n, (uint32_t)n};
    text_append(&tokenizer->bytes, token, n + 1);
    if (tokenizer->byte_level) {
        size_t at = tokenizer->bytes.n;
        if (!tokenizer_token_bytes(&tokenizer->bytes, token, n)) {
            return STATUS_OK; /* must be an added token: check_alphabet */
        }
        tokenizer->decoded[id] = (Span){(uint32_t)at, (uint32_t)(tokenizer->bytes.n - at)};
    }
    tokenizer_vocab_add(tokenizer, id); /* JSON keys differ, so this cannot be there yet */
    return STATUS_OK;
}

/* SmolLM2 lacks these and is in use: bytes that never occur in UTF-8 or lead to planes without
 * characters, and control characters. */
static bool may_lack_byte(int byte)
{
    return byte == 0xc0 || byte == 0xc1 || byte == 0xf1 || byte == 0xf2 || byte >= 0xf5 ||
           byte == 0x7f ||
           (byte >= 1 && byte < 0x20 && byte != '\t' && byte != '\n' && byte != '\r');
}

static Status find_bytes(Tokenizer *tokenizer, Error *error)
{
    for (int byte = 0; byte < 256; byte++) {
        char name[8];
        char raw = (char)byte;
        int n = snprintf(name, sizeof name, "<0x%02X>", (unsigned)byte);
        tokenizer->byte_ids[byte] = -1;
        if (tokenizer->byte_level) {
            tokenizer->byte_ids[byte] = tokenizer_vocab_find(tokenizer, &raw, 1);
        } else if (tokenizer->byte_fallback) {
            tokenizer->byte_ids[byte] = tokenizer_vocab_find(tokenizer, name, (size_t)n);
        }
        if (tokenizer->byte_ids[byte] < 0 && (tokenizer->byte_level || tokenizer->byte_fallback) &&
            (tokenizer->byte_fallback || !may_lack_byte(byte))) {
            return error_set(error, STATUS_REFUSED, "model.vocab: no token for byte 0x%02X%s",
                             (unsigned)byte,
                             tokenizer->byte_level ? "" : ", which byte_fallback needs");
        }
    }
    return STATUS_OK;
}

static Status load_vocab(Tokenizer *tokenizer, const Json *model, const Json *added, Error *error)
{
    const Json *vocab = json_get(model, "vocab"), *merges = json_get(model, "merges");
    if (json_kind(vocab) != JSON_OBJECT || json_size(vocab) == 0) {
        return error_set(error, STATUS_REFUSED, "model.vocab is not an object with tokens");
    }
    if (json_kind(merges) != JSON_ARRAY) {
        return error_set(error, STATUS_REFUSED, "model.merges is %s, expected an array",
                         json_kind_name(json_kind(merges)));
    }
    if (json_kind(added) != JSON_NULL && json_kind(added) != JSON_ARRAY) {
        return error_set(error, STATUS_REFUSED, "added_tokens is %s, expected an array",
                         json_kind_name(json_kind(added)));
    }
    tokenizer->n_vocab = json_size(vocab);
    Status status = count_ids(tokenizer, vocab, added, error);
    status = status ? status : make_tables(tokenizer, json_size(merges), error);
    for (size_t i = 0; i < json_size(vocab) && !status; i++) {
        int32_t id = -1;
        status = check_id(&id, json_at(vocab, i), json_key(vocab, i), error);
        status = status ? status : load_token(tokenizer, json_key(vocab, i), id, error);
    }
    if (!status && tokenizer->byte_level && tokenizer->byte_fallback) {
        status = error_set(error, STATUS_REFUSED,
                           "model.byte_fallback with a ByteLevel "
                           "pre_tokenizer is not supported");
    }
    status = status ? status : find_bytes(tokenizer, error);
    if (status) {
        return status;
    }
    const Json *unknown = json_get(model, "unk_token");
    const char *token = json_string(unknown, NULL);
    tokenizer->unknown_id = token ? tokenizer_id(tokenizer, token) : -1;
    if (json_kind(unknown) != JSON_NULL && tokenizer->unknown_id < 0) {
        return error_set(error, STATUS_REFUSED, "model.unk_token \"%.*s\" is not in model.vocab",
                         shown(token ? token : ""), token ? token : "");
    }
    return STATUS_OK;
}

/* ---- model: merges ------------------------------------------------------------------------- */

typedef struct {
    const char *half[2];
    size_t n[2];
    int32_t id[2];
    int32_t merged;
} Merge;

/* Ids of the halves and of the token they make, -1 where there is none. */
static bool find_merge(const Tokenizer *tokenizer, Merge *merge, Text *scratch)
{
    text_clear(scratch);
    merge->id[0] = merge->id[1] = merge->merged = -1;
    for (int i = 0; i < 2; i++) {
        size_t before = scratch->n;
        if (!tokenizer->byte_level) {
            text_append(scratch, merge->half[i], merge->n[i]);
        } else if (!tokenizer_token_bytes(scratch, merge->half[i], merge->n[i])) {
            return false;
        }
        merge->id[i] =
            tokenizer_vocab_find(tokenizer, scratch->bytes + before, scratch->n - before);
    }
    merge->merged = tokenizer_vocab_find(tokenizer, scratch->bytes, scratch->n);
    return merge->id[0] >= 0 && merge->id[1] >= 0 && merge->merged >= 0;
}

/* "a b". A string with more spaces, as old files of Llama 2 have where tokens hold spaces, must
 * have exactly one reading by the vocabulary. */
static Status split_string(const Tokenizer *tokenizer, Merge *merge, Text *scratch,
                           const char *string, size_t n, Error *error)
{
    enum { MAX_SPACES = 16 };
    int n_spaces = 0, n_readings = 0;
    size_t reading = 0;
    for (size_t i = 0; i < n; i++) {
        if (string[i] != ' ') {
            continue;
        }
        if (++n_spaces > MAX_SPACES) {
            break;
        }
        *merge = (Merge){.half = {string, string + i + 1}, .n = {i, n - i - 1}};
        if (i > 0 && i + 1 < n && find_merge(tokenizer, merge, scratch)) {
            n_readings++;
            reading = i;
        }
    }
    if (n_spaces > 1 && n_readings == 1) {
        *merge = (Merge){.half = {string, string + reading + 1}, .n = {reading, n - reading - 1}};
    } else if (n_spaces != 1) {
        return error_set(error, STATUS_REFUSED, "\"%.*s\" has %s space", utf8_shown(string, n, 60),
                         string, n_spaces == 0 ? "no" : "more than one");
    }
    return STATUS_OK;
}

/* as_string: whether it must be of the form "a b", else ["a", "b"]. */
static Status split_merge(const Tokenizer *tokenizer, Merge *merge, Text *scratch, const Json *json,
                          bool as_string, Error *error)
{
    if (as_string != (json_kind(json) == JSON_STRING)) {
        return error_set(error, STATUS_REFUSED, "is %s, the first merge is %s",
                         json_kind_name(json_kind(json)), as_string ? "a string" : "not");
    }
    if (as_string) {
        size_t n;
        const char *string = json_string(json, &n);
        Status status = split_string(tokenizer, merge, scratch, string, n, error);
        if (status) {
            return status;
        }
    } else {
        *merge = (Merge){0};
        for (size_t i = 0; i < 2; i++) {
            merge->half[i] = json_string(json_at(json, i), &merge->n[i]);
        }
        if (json_kind(json) != JSON_ARRAY || json_size(json) != 2 || !merge->half[0] ||
            !merge->half[1]) {
            return error_set(error, STATUS_REFUSED, "is not a pair of strings");
        }
    }
    if (merge->n[0] == 0 || merge->n[1] == 0) {
        return error_set(error, STATUS_REFUSED, "has an empty half");
    }
    return STATUS_OK;
}

static Status load_merge(Tokenizer *tokenizer, Text *scratch, const Json *json, bool as_string,
                         int32_t rank, Error *error)
{
    Merge merge = {0};
    Status status = split_merge(tokenizer, &merge, scratch, json, as_string, error);
    if (status) {
        return status;
    }
    int n0 = utf8_shown(merge.half[0], merge.n[0], 60);
    int n1 = utf8_shown(merge.half[1], merge.n[1], 60);
    if (!find_merge(tokenizer, &merge, scratch)) {
        if (merge.id[0] >= 0 && merge.id[1] >= 0) {
            return error_set(error, STATUS_REFUSED, "\"%.*s%.*s\" is not in model.vocab", n0,
                             merge.half[0], n1, merge.half[1]);
        }
        int missing = merge.id[0] < 0 ? 0 : 1;
        return error_set(error, STATUS_REFUSED, "\"%.*s\" is not in model.vocab", missing ? n1 : n0,
                         merge.half[missing]);
    }
    if (!tokenizer_merge_add(tokenizer, merge.id[0], merge.id[1], rank, merge.merged)) {
        return error_set(error, STATUS_REFUSED, "\"%.*s %.*s\" is given twice", n0, merge.half[0],
                         n1, merge.half[1]);
    }
    return STATUS_OK;
}

static Status load_merges(Tokenizer *tokenizer, const Json *merges, Error *error)
{
    bool as_string = json_kind(json_at(merges, 0)) == JSON_STRING;
    Text scratch = {0};
    Status status = STATUS_OK;
    for (size_t i = 0; i < json_size(merges) && !status; i++) {
        status = load_merge(tokenizer, &scratch, json_at(merges, i), as_string, (int32_t)i, error);
        if (status) {
            error_context(error, status, "model.merges[%zu]", i);
        }
    }
    text_release(&scratch);
    return status;
}

/* An added token may have characters outside the alphabet of bytes although it is in model.vocab:
 * it is found as text, never by BPE. */
static Status check_alphabet(const Tokenizer *tokenizer, Error *error)
{
    for (int32_t id = 0; id < tokenizer->n_ids && tokenizer->byte_level; id++) {
        const char *token = tokenizer_token(tokenizer, id);
        if (token && tokenizer->decoded[id].n == 0 && !(tokenizer->flags[id] & TOKEN_ADDED)) {
            return error_set(
                error, STATUS_REFUSED,
                "model.vocab: \"%.*s\" (id %d) has a character that stands for no byte",
                shown(token), token, id);
        }
    }
    return STATUS_OK;
}

/* ---- what decoding gives ------------------------------------------------------------------- */

/* "<0x0A>" as the byte, or -1. */
static int fallback_byte(const char *s, size_t n)
{
    if (n != 6 || memcmp(s, "<0x", 3) != 0 || s[5] != '>') {
        return -1;
    }
    char digits[3] = {s[3], s[4], 0}, *end;
    long value = strtol(digits, &end, 16);
    return *end || s[3] == '-' || s[3] == '+' || s[3] == ' ' ? -1 : (int)value;
}

static void decode_token(const Tokenizer *tokenizer, Text *out, const char *token, size_t n)
{
    if (tokenizer->byte_level) {
        if (!tokenizer_token_bytes(out, token, n)) {
            text_append(out, token, n);
        }
        return;
    }
    Text from = {0}, to = {0};
    text_append(&from, token, n);
    for (int i = 0; i < tokenizer->n_replace; i++) {
        const DecodeReplace *replace = &tokenizer->replace[i];
        text_clear(&to);
        tokenizer_replace(&to, text_string(&from), from.n, &replace->from, &replace->to);
        Text swap = from;
        from = to;
        to = swap;
    }
    int byte = tokenizer->decode_bytes ? fallback_byte(text_string(&from), from.n) : -1;
    if (byte >= 0) {
        char raw = (char)byte;
        text_append(out, &raw, 1);
    } else {
        text_append(out, text_string(&from), from.n);
    }
    text_release(&from);
    text_release(&to);
}

static Status set_decoded(Tokenizer *tokenizer, int32_t id, const char *token, size_t n,
                          Error *error)
{
    Text decoded = {0};
    decode_token(tokenizer, &decoded, token, n);
    tokenizer->decoded[id] = (Span){(uint32_t)tokenizer->bytes.n, (uint32_t)decoded.n};
    text_append(&tokenizer->bytes, text_string(&decoded), decoded.n);
    text_release(&decoded);
    return tokenizer->bytes.n <= TOKENIZER_MAX_TEXT
               ? STATUS_OK
               : error_set(error, STATUS_REFUSED, "the decoded tokens exceed %d bytes",
                           TOKENIZER_MAX_TEXT);
}

static Status load_decoded(Tokenizer *tokenizer, Error *error)
{
    Text copy = {0};
    Status status = STATUS_OK;
    for (int32_t id = 0; id < tokenizer->n_ids && !status; id++) {
        Span written = tokenizer->written[id];
        if (!(tokenizer->flags[id] & TOKEN_EXISTS) || tokenizer->decoded[id].n) {
            continue;
        }
        text_clear(&copy); /* tokenizer->bytes moves as it grows */
        text_append(&copy, tokenizer->bytes.bytes + written.at, written.n);
        status = set_decoded(tokenizer, id, copy.bytes, copy.n, error);
    }
    text_release(&copy);
    /* A token that was found in normalized text decodes to that text. */
    for (size_t i = 0; i < tokenizer->normalized.n && !tokenizer->byte_level && !status; i++) {
        const AddedToken *token = &tokenizer->normalized.tokens[i];
        status = set_decoded(tokenizer, token->id, token->content, token->n, error);
    }
    return status;
}

Status tokenizer_load(Tokenizer *tokenizer, const Json *root, Error *error)
{
    const Json *model = json_get(root, "model"), *added = json_get(root, "added_tokens");
    Status status = load_settings(tokenizer, root, error);
    status = status ? status : tokenizer_load_steps(tokenizer, root, error);
    status = status ? status : load_vocab(tokenizer, model, added, error);
    status = status ? status : load_merges(tokenizer, json_get(model, "merges"), error);
    status = status ? status : tokenizer_load_added(tokenizer, added, error);
    status = status ? status : check_alphabet(tokenizer, error);
    status =
        status ? status : tokenizer_load_post(tokenizer, json_get(root, "post_processor"), error);
    status = status ? status : load_decoded(tokenizer, error);
    if (!status) {
        tokenizer_bpe_finish(tokenizer);
    }
    return status;
}
