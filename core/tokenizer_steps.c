/* The normalizer, pre_tokenizer, post_processor and decoder of a tokenizer.json: a short list of
 * steps each. What is not known is refused by name. */
#include "core/tokenizer_private.h"

#include <string.h>

static const char qwen2_pattern[] = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
                                    "\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
                                    "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
static const char llama3_pattern[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}"
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
static const char gpt2_pattern[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

const char *tokenizer_split_pattern(SplitRule rule)
{
    return rule == SPLIT_GPT2     ? gpt2_pattern
           : rule == SPLIT_QWEN2  ? qwen2_pattern
           : rule == SPLIT_LLAMA3 ? llama3_pattern
                                  : NULL;
}

/* ---- helpers ------------------------------------------------------------------------------- */

Status tokenizer_flag(bool *out, const Json *object, const char *key, bool missing,
                      const char *place, Error *error)
{
    const Json *value = json_get(object, key);
    *out = missing;
    if (json_kind(value) != JSON_NULL && !json_bool(value, out)) {
        return error_set(error, STATUS_REFUSED, "%s: %s is %s, expected true or false", place, key,
                         json_kind_name(json_kind(value)));
    }
    return STATUS_OK;
}

static bool is_type(const Json *step, const char *type)
{
    const char *name = json_string(json_get(step, "type"), NULL);
    return name && strcmp(name, type) == 0;
}

static Status unknown_step(const Json *step, const char *place, Error *error)
{
    const char *name = json_string(json_get(step, "type"), NULL);
    if (!name) {
        return error_set(error, STATUS_REFUSED, "%s: not an object with a type", place);
    }
    return error_set(error, STATUS_REFUSED, "%s: type \"%.*s\" is not supported", place,
                     utf8_shown(name, strlen(name), 60), name);
}

/* The i-th step of a list: the value itself, or what its `list` member holds when it is a Sequence.
 * NULL after the last. */
static const Json *step_at(const Json *value, const char *list, size_t i)
{
    if (json_kind(value) == JSON_NULL) {
        return NULL;
    }
    if (!is_type(value, "Sequence")) {
        return i == 0 ? value : NULL;
    }
    return json_at(json_get(value, list), i);
}

/* Bounds the number of steps and refuses a Sequence without its list. */
static Status check_steps(const Json *value, const char *list, const char *place, Error *error)
{
    if (json_kind(value) == JSON_NULL || !is_type(value, "Sequence")) {
        return STATUS_OK;
    }
    const Json *steps = json_get(value, list);
    if (json_kind(steps) != JSON_ARRAY) {
        return error_set(error, STATUS_REFUSED, "%s: a Sequence without an array \"%s\"", place,
                         list);
    }
    if (json_size(steps) > TOKENIZER_MAX_STEPS) {
        return error_set(error, STATUS_REFUSED, "%s: %zu steps, at most %d are supported", place,
                         json_size(steps), TOKENIZER_MAX_STEPS);
    }
    return STATUS_OK;
}

static Status read_short(ShortString *out, const Json *object, const char *key, bool may_be_empty,
                         const char *place, Error *error)
{
    size_t n;
    const char *string = json_string(json_get(object, key), &n);
    if (!string || n > TOKENIZER_MAX_SHORT || (n == 0 && !may_be_empty)) {
        return error_set(error, STATUS_REFUSED, "%s: %s is not a string of %d to %d bytes", place,
                         key, may_be_empty ? 0 : 1, TOKENIZER_MAX_SHORT);
    }
    memcpy(out->bytes, string, n);
    out->bytes[n] = 0;
    out->n = n;
    return STATUS_OK;
}

static Status read_replace(ShortString *from, ShortString *to, const Json *step, const char *place,
                           Error *error)
{
    Status status = read_short(from, json_get(step, "pattern"), "String", false, place, error);
    return status ? status : read_short(to, step, "content", true, place, error);
}

/* ---- normalizer ---------------------------------------------------------------------------- */

static Status load_normalizer(Tokenizer *tokenizer, const Json *value, Error *error)
{
    const char *place = "normalizer";
    Status status = check_steps(value, "normalizers", place, error);
    const Json *json;
    for (size_t i = 0; !status && (json = step_at(value, "normalizers", i)); i++) {
        NormalizeStep *step = &tokenizer->normalize[tokenizer->n_normalize++];
        if (is_type(json, "NFC")) {
            step->kind = NORMALIZE_NFC;
        } else if (is_type(json, "Prepend")) {
            step->kind = NORMALIZE_PREPEND;
            status = read_short(&step->to, json, "prepend", true, place, error);
        } else if (is_type(json, "Replace")) {
            step->kind = NORMALIZE_REPLACE;
            status = read_replace(&step->from, &step->to, json, place, error);
        } else {
            status = unknown_step(json, place, error);
        }
    }
    return status;
}

bool tokenizer_replace(Text *out, const char *text, size_t n, const ShortString *from,
                       const ShortString *to)
{
    size_t copied = 0, i = 0;
    while (n - i >= from->n) {
        const char *hit = memchr(text + i, from->bytes[0], n - i - from->n + 1);
        if (!hit) {
            break;
        }
        i = (size_t)(hit - text);
        if (memcmp(hit, from->bytes, from->n) != 0) {
            i++;
            continue;
        }
        text_append(out, text + copied, i - copied);
        text_append(out, to->bytes, to->n);
        i += from->n;
        copied = i;
        if (out->n > TOKENIZER_MAX_TEXT) {
            return false;
        }
    }
    text_append(out, text + copied, n - copied);
    return out->n <= TOKENIZER_MAX_TEXT;
}

Status tokenizer_normalize(const Tokenizer *tokenizer, Text *out, const char *text, size_t n,
                           Error *error)
{
    Text from = {0}, to = {0};
    bool fits = true;
    text_append(&from, text, n);
    for (int i = 0; i < tokenizer->n_normalize && fits; i++) {
        const NormalizeStep *step = &tokenizer->normalize[i];
        if (step->kind == NORMALIZE_NFC && !unicode_nfc_may_change(from.bytes, from.n)) {
            continue;
        }
        text_clear(&to);
        if (step->kind == NORMALIZE_NFC) {
            unicode_nfc(&to, from.bytes, from.n);
        } else if (step->kind == NORMALIZE_PREPEND) {
            text_append(&to, step->to.bytes, from.n ? step->to.n : 0);
            text_append(&to, from.bytes, from.n);
        } else {
            fits = tokenizer_replace(&to, from.bytes, from.n, &step->from, &step->to);
        }
        Text swap = from;
        from = to;
        to = swap;
    }
    if (fits) {
        text_append(out, text_string(&from), from.n);
    }
    text_release(&from);
    text_release(&to);
    return fits ? STATUS_OK
                : error_set(error, STATUS_REFUSED, "the text exceeds %d bytes once normalized",
                            TOKENIZER_MAX_TEXT);
}

/* ---- pre_tokenizer ------------------------------------------------------------------------- */

static Status load_split(Tokenizer *tokenizer, const Json *step, Error *error)
{
    const char *place = "pre_tokenizer";
    static const SplitRule known[] = {SPLIT_GPT2, SPLIT_QWEN2, SPLIT_LLAMA3};
    size_t n;
    const char *pattern = json_string(json_get(json_get(step, "pattern"), "Regex"), &n);
    const char *behavior = json_string(json_get(step, "behavior"), NULL);
    bool invert;
    Status status = tokenizer_flag(&invert, step, "invert", false, place, error);
    if (status) {
        return status;
    }
    /* The known patterns match all of a text, so that nothing lies between two matches. */
    if (!pattern || !behavior || strcmp(behavior, invert ? "Removed" : "Isolated") != 0) {
        return error_set(error, STATUS_REFUSED,
                         "%s: a Split must have a Regex pattern and behavior Isolated, or Removed "
                         "with invert true",
                         place);
    }
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const char *written = tokenizer_split_pattern(known[i]);
        if (written && strlen(written) == n && memcmp(written, pattern, n) == 0) {
            tokenizer->split[tokenizer->n_split++] = known[i];
            return STATUS_OK;
        }
    }
    return error_set(error, STATUS_REFUSED,
                     "%s: the pattern \"%.*s\" is none of those known (GPT-2, Qwen2, Llama 3)",
                     place, utf8_shown(pattern, n, 80), pattern);
}

static Status load_byte_level(Tokenizer *tokenizer, const Json *step, size_t place_in_list,
                              Error *error)
{
    const char *place = "pre_tokenizer ByteLevel";
    bool use_regex, prefix;
    Status status = tokenizer_flag(&use_regex, step, "use_regex", true, place, error);
    status =
        status ? status : tokenizer_flag(&prefix, step, "add_prefix_space", true, place, error);
    if (status) {
        return status;
    }
    if (prefix && place_in_list > 0) {
        return error_set(error, STATUS_REFUSED,
                         "%s: add_prefix_space after another step is not supported", place);
    }
    tokenizer->byte_level = true;
    tokenizer->prefix_space = prefix;
    if (use_regex) {
        tokenizer->split[tokenizer->n_split++] = SPLIT_GPT2;
    }
    return STATUS_OK;
}

static Status load_metaspace(Tokenizer *tokenizer, const Json *step, size_t place_in_list,
                             Error *error)
{
    static const struct {
        const char *name;
        Metaspace metaspace;
    } schemes[] = {
        {"never", METASPACE_NEVER}, {"first", METASPACE_FIRST}, {"always", METASPACE_ALWAYS}};
    const char *place = "pre_tokenizer Metaspace";
    const char *mark = json_string(json_get(step, "replacement"), NULL);
    const Json *scheme = json_get(step, "prepend_scheme");
    const char *name = json_string(scheme, NULL);
    bool prefix, split;
    Status status = tokenizer_flag(&prefix, step, "add_prefix_space", true, place, error);
    status = status ? status : tokenizer_flag(&split, step, "split", true, place, error);
    if (status) {
        return status;
    }
    if (place_in_list > 0) {
        return error_set(error, STATUS_REFUSED, "%s: must be the first step", place);
    }
    if (!mark || strcmp(mark, TOKENIZER_MARK) != 0) {
        return error_set(error, STATUS_REFUSED, "%s: replacement is not \"" TOKENIZER_MARK "\"",
                         place);
    }
    name = name || json_kind(scheme) != JSON_NULL ? name : prefix ? "always" : "never";
    for (size_t i = 0; name && i < sizeof schemes / sizeof *schemes; i++) {
        if (strcmp(name, schemes[i].name) == 0) {
            tokenizer->metaspace = schemes[i].metaspace;
        }
    }
    if (tokenizer->metaspace == METASPACE_NONE) {
        return error_set(error, STATUS_REFUSED,
                         "%s: prepend_scheme is none of always, first, never", place);
    }
    if (!prefix && tokenizer->metaspace != METASPACE_NEVER) {
        return error_set(error, STATUS_REFUSED,
                         "%s: add_prefix_space false, but prepend_scheme \"%s\"", place, name);
    }
    if (split) {
        tokenizer->split[tokenizer->n_split++] = SPLIT_MARKS;
    }
    return STATUS_OK;
}

static Status load_pre_tokenizer(Tokenizer *tokenizer, const Json *value, Error *error)
{
    const char *place = "pre_tokenizer";
    Status status = check_steps(value, "pretokenizers", place, error);
    const Json *step;
    for (size_t i = 0; !status && (step = step_at(value, "pretokenizers", i)); i++) {
        if (tokenizer->byte_level) {
            status = error_set(error, STATUS_REFUSED, "%s: ByteLevel must be the last step", place);
        } else if (is_type(step, "ByteLevel")) {
            status = load_byte_level(tokenizer, step, i, error);
        } else if (is_type(step, "Metaspace")) {
            status = load_metaspace(tokenizer, step, i, error);
        } else if (is_type(step, "Split")) {
            status = load_split(tokenizer, step, error);
        } else if (is_type(step, "Digits")) {
            bool single;
            status = tokenizer_flag(&single, step, "individual_digits", false, place, error);
            tokenizer->split[tokenizer->n_split++] = single ? SPLIT_DIGITS : SPLIT_DIGIT_RUNS;
        } else {
            status = unknown_step(step, place, error);
        }
    }
    return status;
}

/* ---- decoder ------------------------------------------------------------------------------- */

static Status read_strip(Tokenizer *tokenizer, const Json *step, const char *place, Error *error)
{
    int64_t start, stop;
    int32_t c;
    Status status = read_short(&tokenizer->strip, step, "content", false, place, error);
    if (status) {
        return status;
    }
    if (utf8_decode(&c, tokenizer->strip.bytes, tokenizer->strip.n) != tokenizer->strip.n) {
        return error_set(error, STATUS_REFUSED, "%s: Strip: content is not one character", place);
    }
    if (!json_int64(json_get(step, "start"), &start) || start < 0 || start > 1024 ||
        !json_int64(json_get(step, "stop"), &stop) || stop < 0 || stop > 1024) {
        return error_set(error, STATUS_REFUSED,
                         "%s: Strip: start and stop must be integers from 0 to 1024", place);
    }
    tokenizer->strip_start = (size_t)start;
    tokenizer->strip_stop = (size_t)stop;
    return STATUS_OK;
}

/* Replace ... ByteFallback Fuse Strip, in this order, each but the first once at most. */
static Status load_decoder(Tokenizer *tokenizer, const Json *value, Error *error)
{
    const char *place = "decoder";
    enum { REPLACE, BYTES, FUSE, STRIP, CLOSED } stage = REPLACE;
    tokenizer->join_with_space = json_kind(value) == JSON_NULL;
    Status status = check_steps(value, "decoders", place, error);
    const Json *step;
    size_t n_steps = 0;
    for (; !status && (step = step_at(value, "decoders", n_steps)); n_steps++) {
        bool in_order = true;
        if (is_type(step, "ByteLevel")) {
            in_order = n_steps == 0;
            tokenizer->decode_byte_level = true;
            stage = CLOSED;
        } else if (is_type(step, "Replace")) {
            in_order = stage == REPLACE && tokenizer->n_replace < TOKENIZER_MAX_REPLACE;
            if (in_order) {
                DecodeReplace *replace = &tokenizer->replace[tokenizer->n_replace++];
                status = read_replace(&replace->from, &replace->to, step, place, error);
            }
        } else if (is_type(step, "ByteFallback")) {
            in_order = stage < BYTES;
            stage = BYTES;
            tokenizer->decode_bytes = true;
        } else if (is_type(step, "Fuse")) {
            in_order = stage < FUSE;
            stage = FUSE;
        } else if (is_type(step, "Strip")) {
            in_order = stage == FUSE;
            stage = STRIP;
            status = read_strip(tokenizer, step, place, error);
        } else {
            status = unknown_step(step, place, error);
        }
        if (!status && !in_order) {
            status = error_set(error, STATUS_REFUSED,
                               "%s: steps in this order are not supported; known are ByteLevel, or "
                               "Replace, ByteFallback, Fuse, Strip",
                               place);
        }
    }
    return status;
}

Status tokenizer_load_steps(Tokenizer *tokenizer, const Json *root, Error *error)
{
    Status status = load_normalizer(tokenizer, json_get(root, "normalizer"), error);
    status =
        status ? status : load_pre_tokenizer(tokenizer, json_get(root, "pre_tokenizer"), error);
    status = status ? status : load_decoder(tokenizer, json_get(root, "decoder"), error);
    if (!status && tokenizer->byte_level != tokenizer->decode_byte_level) {
        status = error_set(error, STATUS_REFUSED, "%s is ByteLevel but %s is not",
                           tokenizer->byte_level ? "pre_tokenizer" : "decoder",
                           tokenizer->byte_level ? "decoder" : "pre_tokenizer");
    }
    return status;
}

/* ---- post_processor ------------------------------------------------------------------------ */

/* The ids that the template's special_tokens give for a name, each checked against its token. */
static Status add_special(Tokenizer *tokenizer, const Json *special, const char *name, int32_t *ids,
                          int *n_ids, Error *error)
{
    const Json *entry = json_get(special, name);
    const Json *given = json_get(entry, "ids"), *tokens = json_get(entry, "tokens");
    if (json_kind(given) != JSON_ARRAY || json_kind(tokens) != JSON_ARRAY ||
        json_size(given) != json_size(tokens) || json_size(given) == 0) {
        return error_set(error, STATUS_REFUSED,
                         "post_processor: the template names \"%.*s\", which special_tokens does "
                         "not give",
                         utf8_shown(name, strlen(name), 60), name);
    }
    for (size_t i = 0; i < json_size(given); i++) {
        int64_t id;
        const char *token = json_string(json_at(tokens, i), NULL);
        if (!token || !json_int64(json_at(given, i), &id) || id < 0 ||
            tokenizer_id(tokenizer, token) != id) {
            return error_set(error, STATUS_REFUSED,
                             "post_processor: special token \"%.*s\" and its id do not agree with "
                             "the vocabulary",
                             utf8_shown(name, strlen(name), 60), name);
        }
        if (*n_ids == TOKENIZER_MAX_STEPS) {
            return error_set(error, STATUS_REFUSED,
                             "post_processor: more than %d special tokens on one side",
                             TOKENIZER_MAX_STEPS);
        }
        ids[(*n_ids)++] = (int32_t)id;
    }
    return STATUS_OK;
}

static Status load_template(Tokenizer *tokenizer, const Json *post, Error *error)
{
    const Json *single = json_get(post, "single");
    int n_sequences = 0;
    if (json_kind(single) != JSON_ARRAY) {
        return error_set(error, STATUS_REFUSED, "post_processor: single is not an array");
    }
    for (size_t i = 0; i < json_size(single); i++) {
        const Json *piece = json_at(single, i);
        const char *special = json_string(json_get(json_get(piece, "SpecialToken"), "id"), NULL);
        const char *sequence = json_string(json_get(json_get(piece, "Sequence"), "id"), NULL);
        if (special) {
            bool before = n_sequences == 0;
            Status status = add_special(tokenizer, json_get(post, "special_tokens"), special,
                                        before ? tokenizer->before : tokenizer->after,
                                        before ? &tokenizer->n_before : &tokenizer->n_after, error);
            if (status) {
                return status;
            }
        } else if (sequence && strcmp(sequence, "A") == 0) {
            n_sequences++;
        } else {
            return error_set(error, STATUS_REFUSED,
                             "post_processor: single[%zu] is neither a SpecialToken nor Sequence A",
                             i);
        }
    }
    if (n_sequences != 1) {
        return error_set(error, STATUS_REFUSED,
                         "post_processor: single has Sequence A %d times, expected once",
                         n_sequences);
    }
    return STATUS_OK;
}

Status tokenizer_load_post(Tokenizer *tokenizer, const Json *post, Error *error)
{
    const char *place = "post_processor";
    bool has_template = false;
    Status status = check_steps(post, "processors", place, error);
    const Json *step;
    for (size_t i = 0; !status && (step = step_at(post, "processors", i)); i++) {
        if (is_type(step, "TemplateProcessing") && !has_template) {
            has_template = true;
            status = load_template(tokenizer, step, error);
        } else if (!is_type(step, "ByteLevel")) { /* ByteLevel only moves offsets */
            status = unknown_step(step, place, error);
        }
    }
    return status;
}
