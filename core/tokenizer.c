/* Opening, encoding and decoding. The way of a text: added tokens taken out of it as it comes; what
 * is between them normalized; normalized added tokens taken out; the rest split into pieces, each
 * encoded by BPE. */
#include "core/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "core/tokenizer_gguf.h"
#include "core/tokenizer_private.h"

enum { MAX_FILE_BYTES = 256 << 20 };

/* ---- lists of ids -------------------------------------------------------------------------- */

void token_list_release(TokenList *list)
{
    free(list->ids);
    *list = (TokenList){0};
}

void token_list_add(TokenList *list, int32_t id)
{
    if (list->n == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2 : 64;
        int32_t *ids = realloc(list->ids, capacity * sizeof *ids);
        if (!ids) {
            abort(); /* as Text does: the text that became ids was larger */
        }
        list->ids = ids;
        list->capacity = capacity;
    }
    list->ids[list->n++] = id;
}

/* ---- opening ------------------------------------------------------------------------------- */

/* document: freed. */
static Status open_document(Tokenizer **tokenizer, JsonDocument *document, const char *path,
                            Error *error)
{
    Status status;
    Tokenizer *made = calloc(1, sizeof *made);
    if (!made) {
        json_free(document);
        return error_set(error, STATUS_FAILED, "%s: no memory", path);
    }
    if (json_kind(json_root(document)) != JSON_OBJECT) {
        status = error_set(error, STATUS_REFUSED, "the file is %s, expected an object",
                           json_kind_name(json_kind(json_root(document))));
    } else {
        status = tokenizer_load(made, json_root(document), error);
    }
    memcpy(made->sha256, json_sha256(document), sizeof made->sha256);
    json_free(document);
    if (status) {
        tokenizer_free(made);
        return error_context(error, status, "tokenizer \"%s\"", path);
    }
    *tokenizer = made;
    return STATUS_OK;
}

Status tokenizer_of_gguf(Tokenizer **tokenizer, const Gguf *gguf, const char *path, Error *error)
{
    JsonDocument *document;
    Text json = {0};
    Status status = tokenizer_gguf_json(&json, gguf, error);
    status = status ? status : json_parse(&document, text_string(&json), json.n, error);
    text_release(&json);
    return status ? error_context(error, status, "tokenizer of \"%s\"", path)
                  : open_document(tokenizer, document, path, error);
}

Status tokenizer_open(Tokenizer **tokenizer, const char *path, Error *error)
{
    JsonDocument *document;
    Gguf *gguf;
    if (!gguf_is(path)) {
        Status status = json_read(&document, path, MAX_FILE_BYTES, error);
        return status ? status : open_document(tokenizer, document, path, error);
    }
    Status status = gguf_open(&gguf, path, error);
    if (status) {
        return status;
    }
    status = tokenizer_of_gguf(tokenizer, gguf, path, error);
    gguf_close(gguf);
    return status;
}

const char *tokenizer_sha256(const Tokenizer *tokenizer)
{
    return tokenizer->sha256;
}

void tokenizer_free(Tokenizer *tokenizer)
{
    if (!tokenizer) {
        return;
    }
    tokenizer_release_added(&tokenizer->raw);
    tokenizer_release_added(&tokenizer->normalized);
    text_release(&tokenizer->bytes);
    free(tokenizer->flags);
    free(tokenizer->written);
    free(tokenizer->decoded);
    free(tokenizer->vocab);
    free(tokenizer->merges);
    free(tokenizer);
}

/* ---- encoding ------------------------------------------------------------------------------ */

typedef struct {
    const Tokenizer *tokenizer;
    unsigned flags;
    TokenList *ids;
    Error *error;
    BpeWork bpe;
    bool begun; /* something of the text is encoded */
} Encoding;

/* Splits by the rules from `rule` on, one inside the other. */
static Status encode_piece(Encoding *encoding, int rule, const char *text, size_t n)
{
    const Tokenizer *tokenizer = encoding->tokenizer;
    if (rule == tokenizer->n_split) {
        return tokenizer_bpe(tokenizer, &encoding->bpe, text, n, encoding->ids, encoding->error);
    }
    Status status = STATUS_OK;
    for (size_t i = 0; i < n && !status;) {
        size_t length = tokenizer_split_next(tokenizer->split[rule], text + i, n - i);
        status = encode_piece(encoding, rule + 1, text + i, length);
        i += length;
    }
    return status;
}

/* Spaces as marks, and one before a text that has none. */
static Status encode_marked(Encoding *encoding, const char *text, size_t n)
{
    static const ShortString space = {" ", 1}, mark = {TOKENIZER_MARK, sizeof TOKENIZER_MARK - 1};
    Metaspace metaspace = encoding->tokenizer->metaspace;
    bool prefix =
        metaspace == METASPACE_ALWAYS || (metaspace == METASPACE_FIRST && !encoding->begun);
    prefix = prefix && text[0] != ' ' && (n < mark.n || memcmp(text, mark.bytes, mark.n) != 0);
    Text marked = {0};
    text_append(&marked, mark.bytes, prefix ? mark.n : 0);
    Status status =
        tokenizer_replace(&marked, text, n, &space, &mark)
            ? encode_piece(encoding, 0, marked.bytes, marked.n)
            : error_set(encoding->error, STATUS_REFUSED,
                        "the text exceeds %d bytes once normalized", TOKENIZER_MAX_TEXT);
    text_release(&marked);
    return status;
}

static Status encode_plain(Encoding *encoding, const char *text, size_t n)
{
    if (n == 0) {
        return STATUS_OK;
    }
    Status status;
    if (encoding->tokenizer->metaspace) {
        status = encode_marked(encoding, text, n);
    } else if (!encoding->tokenizer->prefix_space || text[0] == ' ') {
        status = encode_piece(encoding, 0, text, n);
    } else {
        Text prefixed = {0};
        text_append(&prefixed, " ", 1);
        text_append(&prefixed, text, n);
        status = encode_piece(encoding, 0, prefixed.bytes, prefixed.n);
        text_release(&prefixed);
    }
    encoding->begun = true;
    return status;
}

typedef Status (*EncodePart)(Encoding *encoding, const char *text, size_t n);

/* Added tokens of one set become their ids; what lies between them goes to `between`. */
static Status encode_around(Encoding *encoding, const AddedSet *set, EncodePart between,
                            const char *text, size_t n)
{
    AddedScan scan = {.set = set,
                      .text = text,
                      .n = n,
                      .with_special = encoding->flags & TOKENIZER_PARSE_SPECIAL};
    for (int32_t id = 0; id >= 0;) {
        size_t from, to;
        tokenizer_next_added(&scan, &from, &to, &id);
        Status status = between(encoding, text + from, to - from);
        if (status) {
            return status;
        }
        if (id >= 0) {
            token_list_add(encoding->ids, id);
            encoding->begun = true;
        }
    }
    return STATUS_OK;
}

static Status encode_normalized(Encoding *encoding, const char *text, size_t n)
{
    return encode_around(encoding, &encoding->tokenizer->normalized, encode_plain, text, n);
}

static Status encode_segment(Encoding *encoding, const char *text, size_t n)
{
    const Tokenizer *tokenizer = encoding->tokenizer;
    bool only_nfc = tokenizer->n_normalize == 1 && tokenizer->normalize[0].kind == NORMALIZE_NFC;
    if (n == 0 || tokenizer->n_normalize == 0 || (only_nfc && !unicode_nfc_may_change(text, n))) {
        return encode_normalized(encoding, text, n);
    }
    Text normalized = {0};
    Status status = tokenizer_normalize(tokenizer, &normalized, text, n, encoding->error);
    status = status ? status : encode_normalized(encoding, normalized.bytes, normalized.n);
    text_release(&normalized);
    return status;
}

static Status encode_text(Encoding *encoding, const char *text, size_t n)
{
    return encode_around(encoding, &encoding->tokenizer->raw, encode_segment, text, n);
}

Status tokenizer_encode(const Tokenizer *tokenizer, const char *text, size_t n, unsigned flags,
                        TokenList *ids, Error *error)
{
    if (n > TOKENIZER_MAX_TEXT) {
        return error_set(error, STATUS_REFUSED, "a text of %zu bytes; at most %d are tokenized", n,
                         TOKENIZER_MAX_TEXT);
    }
    size_t valid = utf8_valid_prefix(text, n);
    if (valid < n) {
        return error_set(error, STATUS_REFUSED, "the text is not UTF-8 at byte %zu (0x%02X)", valid,
                         (unsigned char)text[valid]);
    }
    size_t n_before = ids->n;
    Encoding encoding = {.tokenizer = tokenizer,
                         .flags = flags,
                         .ids = ids,
                         .error = error,
                         .begun = flags & TOKENIZER_INSIDE};
    if (flags & TOKENIZER_ADD_SPECIAL) {
        for (int i = 0; i < tokenizer->n_before; i++) {
            token_list_add(ids, tokenizer->before[i]);
        }
    }
    Status status = encode_text(&encoding, text, n);
    if (!status && (flags & TOKENIZER_ADD_SPECIAL)) {
        for (int i = 0; i < tokenizer->n_after; i++) {
            token_list_add(ids, tokenizer->after[i]);
        }
    }
    if (status) {
        ids->n = n_before;
    }
    tokenizer_bpe_release(&encoding.bpe);
    return status;
}

/* ---- decoding ------------------------------------------------------------------------------ */

/* Takes up to strip_start copies of the strip character off the front of what begins at `from`, and
 * up to strip_stop off its end. */
static void strip_ends(const Tokenizer *tokenizer, Text *out, size_t from)
{
    const ShortString *strip = &tokenizer->strip;
    size_t front = 0;
    for (size_t i = 0; i < tokenizer->strip_start && from + front + strip->n <= out->n; i++) {
        if (memcmp(out->bytes + from + front, strip->bytes, strip->n) != 0) {
            break;
        }
        front += strip->n;
    }
    if (front) {
        memmove(out->bytes + from, out->bytes + from + front, out->n - from - front + 1);
        out->n -= front;
    }
    for (size_t i = 0; i < tokenizer->strip_stop && from + strip->n <= out->n; i++) {
        if (memcmp(out->bytes + out->n - strip->n, strip->bytes, strip->n) != 0) {
            break;
        }
        out->n -= strip->n;
        out->bytes[out->n] = 0;
    }
}

void tokenizer_decode(const Tokenizer *tokenizer, const int32_t *ids, size_t n, bool skip_special,
                      Text *out)
{
    size_t from = out->n;
    bool is_first = true;
    for (size_t i = 0; i < n; i++) {
        if (!tokenizer_token(tokenizer, ids[i]) ||
            (skip_special && (tokenizer->flags[ids[i]] & TOKEN_SPECIAL))) {
            continue;
        }
        if (tokenizer->join_with_space && !is_first) {
            text_append(out, " ", 1);
        }
        is_first = false;
        Span span = tokenizer->decoded[ids[i]];
        text_append(out, tokenizer->bytes.bytes + span.at, span.n);
    }
    if (tokenizer->strip.n && out->n > from) {
        strip_ends(tokenizer, out, from);
    }
}

size_t tokenizer_hidden(const Tokenizer *tokenizer)
{
    return (tokenizer->strip_start + tokenizer->strip_stop) * tokenizer->strip.n +
           tokenizer->join_with_space;
}

/* ---- questions ----------------------------------------------------------------------------- */

int32_t tokenizer_size(const Tokenizer *tokenizer)
{
    return tokenizer->n_ids;
}

static int32_t find_added(const AddedSet *set, const Tokenizer *tokenizer, const char *token)
{
    for (size_t i = 0; i < set->n; i++) {
        const char *added = tokenizer_token(tokenizer, set->tokens[i].id);
        if (added && strcmp(added, token) == 0) {
            return set->tokens[i].id;
        }
    }
    return -1;
}

int32_t tokenizer_id(const Tokenizer *tokenizer, const char *token)
{
    int32_t id = -1;
    size_t n = strlen(token);
    if (!tokenizer->byte_level) {
        id = tokenizer_vocab_find(tokenizer, token, n);
    } else {
        Text bytes = {0};
        if (tokenizer_token_bytes(&bytes, token, n)) {
            id = tokenizer_vocab_find(tokenizer, text_string(&bytes), bytes.n);
        }
        text_release(&bytes);
    }
    id = id >= 0 ? id : find_added(&tokenizer->raw, tokenizer, token);
    return id >= 0 ? id : find_added(&tokenizer->normalized, tokenizer, token);
}

const char *tokenizer_token(const Tokenizer *tokenizer, int32_t id)
{
    if (id < 0 || id >= tokenizer->n_ids || !(tokenizer->flags[id] & TOKEN_EXISTS)) {
        return NULL;
    }
    return tokenizer->bytes.bytes + tokenizer->written[id].at;
}

int32_t tokenizer_bos(const Tokenizer *tokenizer)
{
    return tokenizer->n_before ? tokenizer->before[0] : -1;
}

Status tokenizer_check_vocab(const Tokenizer *tokenizer, int vocab_size, Error *error)
{
    if (tokenizer->n_ids > vocab_size) {
        return error_set(error, STATUS_REFUSED,
                         "the tokenizer's largest id is %d (\"%s\"), but vocab_size is %d",
                         tokenizer->n_ids - 1, tokenizer_token(tokenizer, tokenizer->n_ids - 1),
                         vocab_size);
    }
    return STATUS_OK;
}
