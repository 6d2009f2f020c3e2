/* Strict JSON into a tree, in one pass.
 * The text is copied once and strings are unescaped in place in that copy (they only shrink).
 * Children of an open array or object wait on a stack; when it closes they move into the arena side
 * by side, an object with the slots of its hash table behind them. Duplicate keys are found while
 * the table is filled. */
#include "core/json_tree.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/unicode.h"

enum { MAX_DEPTH = 64, ARENA_FIRST = 1 << 12, ARENA_BLOCK = 1 << 18 };
/* Of the tree, and of its open part. A tree may have 40 times the bytes of its text; the largest
 * real one, a tokenizer of 262144 tokens, has 120 MB. */
static const size_t MAX_TREE = (size_t)256 << 20;

typedef struct {
    JsonDocument *document;
    char *at, *end; /* the next byte to read; one behind the last */
    const char *line_start;
    uint32_t line;
    int depth;
    bool any_keys; /* a key may be there twice */
    Member *stack; /* children of the arrays and objects that are open */
    size_t n_stack, stack_capacity;
    Error *error;
} Parser;

static Status refuse(const Parser *parser, const char *rule)
{
    return error_set(parser->error, STATUS_REFUSED, "line %u, column %zu: %s", parser->line,
                     (size_t)(parser->at - parser->line_start) + 1, rule);
}

static Status no_memory(const Parser *parser, size_t n)
{
    if (n > MAX_TREE || parser->document->taken + n > MAX_TREE) {
        return refuse(parser, "the values so far take 256 MiB of memory, more are not read");
    }
    return error_set(parser->error, STATUS_FAILED, "no memory for %.3f GiB of JSON",
                     (double)n / 0x1p30);
}

static void *arena_take(JsonDocument *document, size_t n)
{
    n = (n + 15) & ~(size_t)15;
    if (n > MAX_TREE || document->taken + n > MAX_TREE) {
        return NULL;
    }
    document->taken += n;
    Block *block = document->blocks;
    if (!block || block->capacity - block->used < n) {
        size_t usual = document->taken < ARENA_FIRST   ? ARENA_FIRST
                       : document->taken < ARENA_BLOCK ? document->taken
                                                       : ARENA_BLOCK;
        size_t capacity = n > usual / 4 ? n : usual;
        Block *fresh = malloc(sizeof *fresh + capacity);
        if (!fresh) {
            return NULL;
        }
        *fresh = (Block){.capacity = capacity};
        if (block && capacity == n) { /* a large one of its own: the small block stays in front */
            fresh->next = block->next;
            block->next = fresh;
        } else {
            fresh->next = block;
            document->blocks = fresh;
        }
        block = fresh;
    }
    void *taken = block->bytes + block->used;
    block->used += n;
    return taken;
}

static void skip_space(Parser *parser)
{
    while (parser->at < parser->end) {
        switch (*parser->at) {
        case '\n':
            parser->line++;
            parser->line_start = parser->at + 1;
            break;
        case ' ':
        case '\t':
        case '\r':
            break;
        default:
            return;
        }
        parser->at++;
    }
}

/* The four hexadecimal digits behind "\u" at s, or -1. */
static int32_t hex4(const char *s, const char *end)
{
    if (end - s < 4) {
        return -1;
    }
    int32_t value = 0;
    for (int i = 0; i < 4; i++) {
        int c = (unsigned char)s[i];
        if (!isxdigit(c)) {
            return -1;
        }
        value = value * 16 + (c <= '9' ? c - '0' : (c | 32) - 'a' + 10);
    }
    return value;
}

static char *put_utf8(char *to, int32_t c)
{
    if (c < 0x80) {
        *to++ = (char)c;
    } else if (c < 0x800) {
        *to++ = (char)(0xc0 | c >> 6);
        *to++ = (char)(0x80 | (c & 63));
    } else if (c < 0x10000) {
        *to++ = (char)(0xe0 | c >> 12);
        *to++ = (char)(0x80 | (c >> 6 & 63));
        *to++ = (char)(0x80 | (c & 63));
    } else {
        *to++ = (char)(0xf0 | c >> 18);
        *to++ = (char)(0x80 | (c >> 12 & 63));
        *to++ = (char)(0x80 | (c >> 6 & 63));
        *to++ = (char)(0x80 | (c & 63));
    }
    return to;
}

/* One escape; parser->at is at the backslash and moves behind it. */
static Status parse_escape(Parser *parser, char **to, bool is_key)
{
    const char *s = parser->at + 1;
    char kind = s < parser->end ? *s : 0;
    const char *plain = "\"\"\\\\//b\bf\fn\nr\rt\t";
    for (; kind && *plain; plain += 2) {
        if (kind == plain[0]) {
            *(*to)++ = plain[1];
            parser->at += 2;
            return STATUS_OK;
        }
    }
    if (kind != 'u') {
        return refuse(parser, "unknown escape in a string");
    }
    int32_t c = hex4(s + 1, parser->end);
    if (c < 0) {
        return refuse(parser, "\\u needs four hexadecimal digits");
    }
    parser->at += 6;
    if (c >= 0xd800 && c < 0xe000) {
        s = parser->at;
        int32_t low =
            parser->end - s >= 6 && s[0] == '\\' && s[1] == 'u' ? hex4(s + 2, parser->end) : -1;
        if (c >= 0xdc00 || low < 0xdc00 || low >= 0xe000) {
            return refuse(parser, "lone surrogate in a string");
        }
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
        parser->at += 6;
    }
    if (c == 0 && is_key) {
        *(*to)++ = (char)0xc0;
        *(*to)++ = (char)0x80;
    } else {
        *to = put_utf8(*to, c);
    }
    return STATUS_OK;
}

/* A string; parser->at is at its opening quote. Unescaped in place and ended by a NUL. */
static Status parse_string(Parser *parser, const char **text, size_t *n, bool is_key)
{
    char *start = ++parser->at;
    char *to = start;
    for (;;) {
        if (parser->at == parser->end) {
            return refuse(parser, "a string does not end");
        }
        unsigned char c = (unsigned char)*parser->at;
        if (c == '"') {
            break;
        }
        if (c == '\\') {
            Status status = parse_escape(parser, &to, is_key);
            if (status != STATUS_OK) {
                return status;
            }
        } else if (c < 0x20) {
            return refuse(parser, "control character in a string");
        } else if (c < 0x80) {
            *to++ = *parser->at++;
        } else {
            size_t left = (size_t)(parser->end - parser->at);
            int32_t code;
            size_t length = utf8_decode(&code, parser->at, left);
            if (length == 0) {
                return refuse(parser, "invalid UTF-8");
            }
            memmove(to, parser->at, length);
            to += length;
            parser->at += length;
        }
    }
    parser->at++;
    *to = 0; /* at or before the closing quote */
    *text = start;
    *n = (size_t)(to - start);
    return STATUS_OK;
}

static bool digit_at(const Parser *parser)
{
    return parser->at < parser->end && *parser->at >= '0' && *parser->at <= '9';
}

static Status parse_number(Parser *parser, Json *value)
{
    const char *start = parser->at;
    if (*parser->at == '-') {
        parser->at++;
    }
    if (!digit_at(parser)) {
        return refuse(parser, "a digit was expected");
    }
    if (*parser->at++ == '0' && digit_at(parser)) {
        return refuse(parser, "a number starts with 0");
    }
    while (digit_at(parser)) {
        parser->at++;
    }
    if (parser->at < parser->end && *parser->at == '.') {
        parser->at++;
        if (!digit_at(parser)) {
            return refuse(parser, "a digit was expected");
        }
        while (digit_at(parser)) {
            parser->at++;
        }
    }
    if (parser->at < parser->end && (*parser->at == 'e' || *parser->at == 'E')) {
        parser->at++;
        if (parser->at < parser->end && (*parser->at == '+' || *parser->at == '-')) {
            parser->at++;
        }
        if (!digit_at(parser)) {
            return refuse(parser, "a digit was expected");
        }
        while (digit_at(parser)) {
            parser->at++;
        }
    }
    value->kind = JSON_NUMBER;
    value->n = (size_t)(parser->at - start);
    char *copy = arena_take(parser->document, value->n + 1);
    if (!copy) {
        return no_memory(parser, value->n);
    }
    memcpy(copy, start, value->n);
    copy[value->n] = 0;
    value->as.text = copy;
    return STATUS_OK;
}

static Status parse_word(Parser *parser, Json *value)
{
    static const struct {
        const char *word;
        JsonKind kind;
    } words[] = {{"null", JSON_NULL}, {"false", JSON_FALSE}, {"true", JSON_TRUE}};
    for (int i = 0; i < 3; i++) {
        size_t n = strlen(words[i].word);
        if ((size_t)(parser->end - parser->at) >= n && memcmp(parser->at, words[i].word, n) == 0) {
            parser->at += n;
            value->kind = (uint8_t)words[i].kind;
            return STATUS_OK;
        }
    }
    return refuse(parser, "a value was expected");
}

static Status push(Parser *parser, const Member *child)
{
    if (parser->n_stack == parser->stack_capacity) {
        size_t capacity = parser->stack_capacity ? 2 * parser->stack_capacity : 64;
        Member *stack = capacity * sizeof *stack > MAX_TREE
                            ? NULL
                            : realloc(parser->stack, capacity * sizeof *stack);
        if (!stack) {
            return no_memory(parser, capacity * sizeof *stack);
        }
        parser->stack = stack;
        parser->stack_capacity = capacity;
    }
    parser->stack[parser->n_stack++] = *child;
    return STATUS_OK;
}

/* Move the members above `base` on the stack into the arena. */
static Status close_object(Parser *parser, Json *value, size_t base)
{
    size_t n = parser->n_stack - base;
    size_t table = n > SMALL_OBJECT ? json_table_slots(n) * sizeof(uint32_t) : 0;
    if (n >= UINT32_MAX) {
        return refuse(parser, "an object with more than 4294967294 members");
    }
    Member *members = arena_take(parser->document, n * sizeof *members + table);
    if (!members) {
        return no_memory(parser, n * sizeof *members + table);
    }
    if (n) {
        memcpy(members, parser->stack + base, n * sizeof *members);
    }
    memset(members + n, 0, table);
    for (size_t i = 0; i < n; i++) {
        bool found = false;
        if (table) {
            uint32_t *slot = NULL;
            found = json_find_member(members, n, members[i].key, members[i].hash, &slot) != NULL;
            if (!found) {
                *slot = (uint32_t)i + 1;
            }
        }
        for (size_t j = 0; !table && j < i; j++) {
            /* NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker): each has a key */
            found = found || strcmp(members[j].key, members[i].key) == 0;
        }
        if (found && !parser->any_keys) {
            return error_set(parser->error, STATUS_REFUSED,
                             "line %u: key \"%.100s\" is there twice", members[i].value.line,
                             members[i].key);
        }
    }
    parser->n_stack = base;
    *value = (Json){.kind = JSON_OBJECT, .line = value->line, .n = n, .as.members = members};
    return STATUS_OK;
}

static Status close_array(Parser *parser, Json *value, size_t base)
{
    size_t n = parser->n_stack - base;
    Json *elements = arena_take(parser->document, n * sizeof *elements);
    if (!elements) {
        return no_memory(parser, n * sizeof *elements);
    }
    for (size_t i = 0; i < n; i++) {
        elements[i] = parser->stack[base + i].value;
    }
    parser->n_stack = base;
    *value = (Json){.kind = JSON_ARRAY, .line = value->line, .n = n, .as.elements = elements};
    return STATUS_OK;
}

static Status parse_value(Parser *parser, Json *value);

/* Key and colon of a member. */
static Status parse_key(Parser *parser, Member *child)
{
    skip_space(parser);
    if (parser->at == parser->end || *parser->at != '"') {
        return refuse(parser, "a key in double quotes was expected");
    }
    size_t n;
    Status status = parse_string(parser, &child->key, &n, true);
    if (status != STATUS_OK) {
        return status;
    }
    child->hash = json_hash_key(child->key, n);
    skip_space(parser);
    if (parser->at == parser->end || *parser->at != ':') {
        return refuse(parser, "':' was expected after a key");
    }
    parser->at++;
    return STATUS_OK;
}

/* An array or object; parser->at is at its bracket. */
static Status parse_container(Parser *parser, Json *value)
{
    bool is_object = *parser->at == '{';
    char closing = is_object ? '}' : ']';
    if (++parser->depth > MAX_DEPTH) {
        return refuse(parser, "nested deeper than 64 levels");
    }
    parser->at++;
    size_t base = parser->n_stack;
    skip_space(parser);
    bool more = parser->at == parser->end || *parser->at != closing;
    while (more) {
        Member child = {0};
        Status status = is_object ? parse_key(parser, &child) : STATUS_OK;
        if (status == STATUS_OK) {
            status = parse_value(parser, &child.value);
        }
        if (status == STATUS_OK) {
            status = push(parser, &child);
        }
        if (status != STATUS_OK) {
            return status;
        }
        skip_space(parser);
        if (parser->at == parser->end || (*parser->at != ',' && *parser->at != closing)) {
            return refuse(parser,
                          is_object ? "',' or '}' was expected" : "',' or ']' was expected");
        }
        more = *parser->at == ',';
        parser->at += more;
    }
    parser->at++;
    parser->depth--;
    return is_object ? close_object(parser, value, base) : close_array(parser, value, base);
}

static Status parse_value(Parser *parser, Json *value)
{
    skip_space(parser);
    *value = (Json){.line = parser->line};
    if (parser->at == parser->end) {
        return refuse(parser, "the text ends where a value was expected");
    }
    char c = *parser->at;
    if (c == '{' || c == '[') {
        return parse_container(parser, value);
    }
    if (c == '"') {
        value->kind = JSON_STRING;
        return parse_string(parser, &value->as.text, &value->n, false);
    }
    if (c == '-' || (c >= '0' && c <= '9')) {
        return parse_number(parser, value);
    }
    return parse_word(parser, value);
}

static Status parse_whole(Parser *parser)
{
    const char *disguise = file_disguise(parser->at, (size_t)(parser->end - parser->at));
    if (disguise) {
        return error_set(parser->error, STATUS_REFUSED, "not JSON: %s", disguise);
    }
    Status status = parse_value(parser, &parser->document->root);
    if (status != STATUS_OK) {
        return status;
    }
    skip_space(parser);
    return parser->at == parser->end ? STATUS_OK
                                     : refuse(parser, "text after the end of the value");
}

/* Takes text (malloc'ed) over, also on failure. */
static Status parse_owned(JsonDocument **document, char *text, size_t n, bool any_keys,
                          Error *error)
{
    JsonDocument *fresh = calloc(1, sizeof *fresh);
    if (!fresh) {
        free(text);
        return error_set(error, STATUS_FAILED, "no memory for JSON");
    }
    fresh->text = text;
    Parser parser = {.document = fresh,
                     .at = text,
                     .end = text + n,
                     .line_start = text,
                     .line = 1,
                     .any_keys = any_keys,
                     .error = error};
    Status status = parse_whole(&parser);
    free(parser.stack);
    if (status != STATUS_OK) {
        json_free(fresh);
        return status;
    }
    *document = fresh;
    return STATUS_OK;
}

Status json_parse(JsonDocument **document, const char *text, size_t n, Error *error)
{
    char *copy = malloc(n + 1);
    if (!copy) {
        return error_set(error, STATUS_FAILED, "no memory for %.3f GiB of JSON",
                         (double)n / 0x1p30);
    }
    if (n) {
        memcpy(copy, text, n);
    }
    return parse_owned(document, copy, n, false, error);
}

static Status read_document(JsonDocument **document, const char *path, size_t max_bytes,
                            bool any_keys, Error *error)
{
    char *text, sha256[SHA256_HEX_SIZE];
    size_t n;
    Status status = file_read(&text, &n, path, max_bytes, error);
    if (status != STATUS_OK) {
        return status;
    }
    sha256_bytes(sha256, text, n); /* before strings are unescaped in place */
    status = parse_owned(document, text, n, any_keys, error);
    if (status != STATUS_OK) {
        return error_context(error, status, "%s", path);
    }
    memcpy((*document)->sha256, sha256, sizeof sha256);
    return STATUS_OK;
}

Status json_read(JsonDocument **document, const char *path, size_t max_bytes, Error *error)
{
    return read_document(document, path, max_bytes, false, error);
}

Status json_check(char sha256[SHA256_HEX_SIZE], const char *path, size_t max_bytes, Error *error)
{
    JsonDocument *document;
    Status status = read_document(&document, path, max_bytes, true, error);
    if (status == STATUS_OK) {
        memcpy(sha256, document->sha256, SHA256_HEX_SIZE);
        json_free(document);
    }
    return status;
}
