/* Tokenizers of files and of small texts made in a test, and what they have to say. */
#pragma once
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/file.h"
#include "core/tokenizer.h"
#include "tests/shared.h"

/* path: (4096) out; the same. */
static inline const char *shared(char path[4096], const char *name)
{
    shared_path(path, name);
    return path;
}

static inline Tokenizer *open_ok(const char *path)
{
    Tokenizer *tokenizer = NULL;
    Error error = {{0}};
    if (tokenizer_open(&tokenizer, path, &error)) {
        fail_msg("%s", error.message);
    }
    return tokenizer;
}

static inline TokenList encode_ok(const Tokenizer *tokenizer, const char *text, size_t n,
                                  unsigned flags)
{
    TokenList ids = {0};
    Error error = {{0}};
    if (tokenizer_encode(tokenizer, text, n, flags, &ids, &error)) {
        fail_msg("%s", error.message);
    }
    return ids;
}

/* Ids of text, written as "1 2 3". */
static inline void assert_ids(const Tokenizer *tokenizer, const char *text, unsigned flags,
                              const char *expected)
{
    TokenList ids = encode_ok(tokenizer, text, strlen(text), flags);
    Text got = {0};
    for (size_t i = 0; i < ids.n; i++) {
        text_printf(&got, "%s%d", i ? " " : "", ids.ids[i]);
    }
    assert_string_equal(text_string(&got), expected);
    text_release(&got);
    token_list_release(&ids);
}

static inline void assert_decodes(const Tokenizer *tokenizer, const int32_t *ids, size_t n,
                                  bool skip, const char *expected)
{
    Text got = {0};
    tokenizer_decode(tokenizer, ids, n, skip, &got);
    assert_string_equal(text_string(&got), expected);
    text_release(&got);
}

static char temporary[64];

static inline const char *write_temporary(const char *json)
{
    snprintf(temporary, sizeof temporary, "/tmp/test_tokenizer_%d.json", (int)getpid());
    Error error;
    assert_int_equal(file_write(temporary, json, strlen(json), &error), STATUS_OK);
    return temporary;
}

static inline Tokenizer *open_json(const char *json)
{
    Tokenizer *tokenizer = open_ok(write_temporary(json));
    unlink(temporary);
    return tokenizer;
}

static inline void assert_refused(const char *json, const char *message)
{
    Tokenizer *tokenizer = NULL;
    Error error = {{0}};
    Status status = tokenizer_open(&tokenizer, write_temporary(json), &error);
    unlink(temporary);
    if (status != STATUS_REFUSED || !strstr(error.message, message)) {
        fail_msg("status %d, \"%s\"; expected \"%s\"", (int)status, error.message, message);
    }
    assert_non_null(strstr(error.message, temporary));
    assert_null(tokenizer);
}

/* What small() may take in `rest`, to go on with: ",...}". */
#define METASPACE ",\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"\\u2581\""

/* A character tokenizer with merges; `model` and `rest` are added to the objects. */
static inline const char *small(Text *json, const char *vocab, const char *merges,
                                const char *model, const char *rest)
{
    text_clear(json);
    text_printf(json,
                "{\"version\":\"1.0\",\"model\":{\"type\":\"BPE\",\"vocab\":%s,\"merges\":%s%s},"
                "\"decoder\":{\"type\":\"Fuse\"}%s}",
                vocab, merges, model, rest);
    return text_string(json);
}
