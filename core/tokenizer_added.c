/* Added tokens: found in the text before anything else looks at it, the longest one first at the
 * leftmost place. */
#include "core/tokenizer_private.h"

#include <stdlib.h>
#include <string.h>

/* ---- looking for them ---------------------------------------------------------------------- */

/* The longest token of the set at the start of text, or NULL. */
static const AddedToken *longest_match(const AddedSet *set, const char *text, size_t n)
{
    unsigned char byte = (unsigned char)text[0];
    size_t low = set->first[byte], high = set->first[byte + 1];
    const AddedToken *best = NULL;
    for (size_t depth = 1; low < high; depth++) {
        /* All of low .. high begin with the first `depth` bytes of text; shorter ones sort first.
         */
        if (set->tokens[low].n == depth) {
            best = &set->tokens[low];
            low++;
        }
        if (depth == n) {
            break;
        }
        unsigned char next = (unsigned char)text[depth];
        size_t a = low, b = high;
        while (a < b) { /* first with a byte >= next */
            size_t middle = a + (b - a) / 2;
            if ((unsigned char)set->tokens[middle].content[depth] < next) {
                a = middle + 1;
            } else {
                b = middle;
            }
        }
        low = a;
        b = high;
        while (a < b) { /* first with a byte > next */
            size_t middle = a + (b - a) / 2;
            if ((unsigned char)set->tokens[middle].content[depth] <= next) {
                a = middle + 1;
            } else {
                b = middle;
            }
        }
        high = a;
    }
    return best;
}

static size_t spaces_before(const char *text, size_t from, size_t to)
{
    while (to > from) {
        size_t start = to - 1;
        while (start > from && ((unsigned char)text[start] & 0xc0) == 0x80) {
            start--;
        }
        int32_t c;
        if (!utf8_decode(&c, text + start, to - start) || unicode_class(c) != UNICODE_SPACE) {
            break;
        }
        to = start;
    }
    return to;
}

static size_t spaces_after(const char *text, size_t n, size_t at)
{
    while (at < n) {
        int32_t c;
        size_t length = utf8_decode(&c, text + at, n - at);
        if (unicode_class(c) != UNICODE_SPACE) {
            break;
        }
        at += length;
    }
    return at;
}

void tokenizer_next_added(AddedScan *scan, size_t *from, size_t *to, int32_t *id)
{
    const AddedSet *set = scan->set;
    while (set->n && scan->search < scan->n) {
        size_t at = scan->search;
        unsigned char byte = (unsigned char)scan->text[at];
        const AddedToken *token = NULL;
        if (set->first[byte] != set->first[byte + 1]) {
            token = longest_match(set, scan->text + at, scan->n - at);
        }
        if (!token) {
            scan->search++;
            continue;
        }
        scan->search = at + token->n;
        if (token->special && !scan->with_special) {
            continue; /* stays text, also where a plain token lies inside it */
        }
        size_t start = at, stop = scan->search;
        if (token->lstrip && start > scan->taken) {
            start = spaces_before(scan->text, scan->taken, start);
        }
        if (token->rstrip) {
            stop = spaces_after(scan->text, scan->n, stop);
        }
        *from = scan->taken;
        *to = start > scan->taken ? start : scan->taken;
        *id = token->id;
        scan->taken = stop;
        return;
    }
    *from = scan->taken;
    *to = scan->n > scan->taken ? scan->n : scan->taken;
    *id = -1;
}

/* ---- reading them -------------------------------------------------------------------------- */

static int compare_contents(const void *left, const void *right)
{
    const AddedToken *a = left, *b = right;
    int order = memcmp(a->content, b->content, a->n < b->n ? a->n : b->n);
    return order ? order : (a->n > b->n) - (a->n < b->n);
}

static Status close_set(AddedSet *set, Error *error)
{
    if (set->n) {
        qsort(set->tokens, set->n, sizeof *set->tokens, compare_contents);
    }
    for (size_t i = 1; i < set->n; i++) {
        if (compare_contents(&set->tokens[i - 1], &set->tokens[i]) == 0) {
            return error_set(error, STATUS_REFUSED,
                             "added_tokens: ids %d and %d are looked for as the same text \"%s\"",
                             set->tokens[i - 1].id, set->tokens[i].id, set->tokens[i].content);
        }
    }
    size_t i = 0;
    for (int byte = 0; byte < 256; byte++) {
        set->first[byte] = (uint32_t)i;
        while (i < set->n && (unsigned char)set->tokens[i].content[0] == byte) {
            i++;
        }
    }
    set->first[256] = (uint32_t)i;
    return STATUS_OK;
}

void tokenizer_release_added(AddedSet *set)
{
    for (size_t i = 0; i < set->n; i++) {
        free((char *)set->tokens[i].content);
    }
    free(set->tokens);
    *set = (AddedSet){0};
}

static Status read_one(AddedToken *token, const char **content, bool *normalized, const Json *item,
                       Error *error)
{
    int64_t id;
    size_t n;
    *content = json_string(json_get(item, "content"), &n);
    if (json_kind(item) != JSON_OBJECT || !*content) {
        return error_set(error, STATUS_REFUSED, "content is missing or not a string");
    }
    if (n == 0 || n > TOKENIZER_MAX_ADDED || memchr(*content, 0, n)) {
        return error_set(error, STATUS_REFUSED,
                         "content has %zu bytes; 1 to %d without NUL are allowed", n,
                         TOKENIZER_MAX_ADDED);
    }
    if (!json_int64(json_get(item, "id"), &id) || id < 0 || id > TOKENIZER_MAX_ID) {
        return error_set(error, STATUS_REFUSED, "\"%s\": id is not an integer from 0 to %d",
                         *content, TOKENIZER_MAX_ID);
    }
    token->id = (int32_t)id;
    token->n = (uint32_t)n;
    bool single_word = false;
    Status status = tokenizer_flag(&token->special, item, "special", false, *content, error);
    status =
        status ? status : tokenizer_flag(&token->lstrip, item, "lstrip", false, *content, error);
    status =
        status ? status : tokenizer_flag(&token->rstrip, item, "rstrip", false, *content, error);
    status = status
                 ? status
                 : tokenizer_flag(normalized, item, "normalized", !token->special, *content, error);
    status =
        status ? status : tokenizer_flag(&single_word, item, "single_word", false, *content, error);
    if (!status && single_word) {
        status = error_set(error, STATUS_REFUSED, "\"%s\": single_word is not supported", *content);
    }
    return status;
}

/* The id that the text has in the vocabulary, or the next free one: other readers number added
 * tokens so, whatever the file says. */
static Status check_id(Tokenizer *tokenizer, const AddedToken *token, const char *content,
                       int32_t *next_id, Error *error)
{
    int32_t expected = -1;
    Text bytes = {0};
    if (!tokenizer->byte_level) {
        expected = tokenizer_vocab_find(tokenizer, content, token->n);
    } else if (tokenizer_token_bytes(&bytes, content, token->n)) {
        expected = tokenizer_vocab_find(tokenizer, bytes.bytes, bytes.n);
    }
    text_release(&bytes);
    if (expected < 0 && token->id < tokenizer->n_ids &&
        (tokenizer->flags[token->id] & TOKEN_EXISTS)) {
        /* In the vocabulary, but not in the alphabet of bytes. */
        Span span = tokenizer->written[token->id];
        if (span.n == token->n &&
            memcmp(tokenizer->bytes.bytes + span.at, content, token->n) == 0) {
            expected = token->id;
        }
    }
    if (expected < 0) {
        expected = (*next_id)++;
    }
    if (token->id != expected) {
        return error_set(error, STATUS_REFUSED, "\"%s\": id %d, expected %d", content, token->id,
                         expected);
    }
    return STATUS_OK;
}

static Status enter_one(Tokenizer *tokenizer, const AddedToken *token, const char *content,
                        bool normalized, Error *error)
{
    int32_t id = token->id;
    if (tokenizer->flags[id] & TOKEN_ADDED) {
        return error_set(error, STATUS_REFUSED, "id %d is given twice", id);
    }
    if (tokenizer->flags[id] & TOKEN_EXISTS) {
        Span span = tokenizer->written[id];
        if (span.n != token->n || memcmp(tokenizer->bytes.bytes + span.at, content, span.n) != 0) {
            return error_set(error, STATUS_REFUSED, "\"%s\": id %d is the vocabulary's \"%s\"",
                             content, id, tokenizer->bytes.bytes + span.at);
        }
    } else {
        tokenizer->written[id] = (Span){(uint32_t)tokenizer->bytes.n, token->n};
        text_append(&tokenizer->bytes, content, token->n + 1);
    }
    tokenizer->flags[id] |= TOKEN_EXISTS | TOKEN_ADDED | (token->special ? TOKEN_SPECIAL : 0);

    Text sought = {0};
    Status status = STATUS_OK;
    if (normalized) {
        status = tokenizer_normalize(tokenizer, &sought, content, token->n, error);
    } else {
        text_append(&sought, content, token->n);
    }
    if (!status && (sought.n == 0 || sought.n > TOKENIZER_MAX_ADDED)) {
        status = error_set(error, STATUS_REFUSED, "\"%s\" is too long or empty once normalized",
                           content);
    }
    if (status) {
        text_release(&sought);
        return status;
    }
    AddedSet *set = normalized ? &tokenizer->normalized : &tokenizer->raw;
    set->tokens[set->n] = *token;
    set->tokens[set->n].content = sought.bytes;
    set->tokens[set->n].n = (uint32_t)sought.n;
    set->n++;
    return STATUS_OK;
}

/* The arrays by id already have room for every id in the file. */
Status tokenizer_load_added(Tokenizer *tokenizer, const Json *added, Error *error)
{
    size_t n = json_size(added);
    tokenizer->raw.tokens = calloc(n + 1, sizeof(AddedToken));
    tokenizer->normalized.tokens = calloc(n + 1, sizeof(AddedToken));
    if (!tokenizer->raw.tokens || !tokenizer->normalized.tokens) {
        return error_set(error, STATUS_FAILED, "no memory for %zu added tokens", n);
    }
    int32_t next_id = (int32_t)tokenizer->n_vocab;
    for (size_t i = 0; i < n; i++) {
        AddedToken token = {0};
        const char *content;
        bool normalized = false;
        Status status = read_one(&token, &content, &normalized, json_at(added, i), error);
        status = status ? status : check_id(tokenizer, &token, content, &next_id, error);
        status = status ? status : enter_one(tokenizer, &token, content, normalized, error);
        if (status) {
            return error_context(error, status, "added_tokens[%zu]", i);
        }
    }
    Status status = close_set(&tokenizer->raw, error);
    return status ? status : close_set(&tokenizer->normalized, error);
}
