/* Ids against Hugging Face tokenizers (tests/tokenizer_golden.py): rows of GSM8K, all characters of
 * Unicode 15, a million of one thing, awkward texts, by the five real tokenizers and by steps that
 * other real files carry; and each of these texts back from its ids. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/file.h"
#include "core/json.h"
#include "core/sha256.h"
#include "core/tokenizer.h"
#include "core/unicode.h"
#include "tests/shared.h"

static JsonDocument *golden;

static const Json *golden_of(const char *list, size_t i)
{
    return json_at(json_get(json_root(golden), list), i);
}

static Tokenizer *open_shared(const char *name)
{
    char path[4096], file[64];
    Tokenizer *tokenizer = NULL;
    Error error;
    snprintf(file, sizeof file, "data/tokenizers/%s/tokenizer.json", name);
    shared_path(path, file);
    if (tokenizer_open(&tokenizer, path, &error)) {
        fail_msg("%s", error.message);
    }
    return tokenizer;
}

/* Ids of several texts, one after the other. */
typedef struct {
    const Tokenizer *tokenizer;
    const char *name;
    unsigned flags;
    Sha256 *hash;
    int64_t n;
} Digest;

static Digest digest_begin(const Tokenizer *tokenizer, const char *name, unsigned flags)
{
    return (Digest){.tokenizer = tokenizer, .name = name, .flags = flags, .hash = sha256_new()};
}

/* The text's ids into the digest; decoded they are `back` again (NULL: the text itself). */
static void digest_add(Digest *digest, const char *text, size_t n, const Text *back)
{
    TokenList ids = {0};
    Text decoded = {0};
    Error error;
    if (tokenizer_encode(digest->tokenizer, text, n, digest->flags, &ids, &error)) {
        fail_msg("%s: %s", digest->name, error.message);
    }
    sha256_update(digest->hash, ids.ids, ids.n * sizeof *ids.ids);
    digest->n += (int64_t)ids.n;
    tokenizer_decode(digest->tokenizer, ids.ids, ids.n, true, &decoded);
    assert_int_equal(decoded.n, back ? back->n : n);
    assert_memory_equal(text_string(&decoded), back ? back->bytes : text, decoded.n);
    text_release(&decoded);
    token_list_release(&ids);
}

static void digest_end(Digest *digest, const Json *expected, const char *what)
{
    char hex[SHA256_HEX_SIZE];
    int64_t n = -1;
    sha256_finish(digest->hash, hex);
    json_int64(json_get(expected, "n"), &n);
    if (digest->n != n || strcmp(hex, json_string(json_get(expected, "sha256"), NULL)) != 0) {
        fail_msg("%s, %s: %lld ids, expected %lld, or the ids differ", digest->name, what,
                 (long long)digest->n, (long long)n);
    }
}

/* What decoding gives where that is not the text: composed by Qwen's NFC; Llama 2's mark of a space
 * is one. */
static void composed(Text *out, const char *name, const char *text, size_t n)
{
    if (strcmp(name, "qwen2.5") == 0) {
        unicode_nfc(out, text, n);
        return;
    }
    bool marks = strcmp(name, "llama2") == 0;
    size_t copied = 0;
    for (size_t i = 0; marks && i + 3 <= n; i++) {
        if (memcmp(text + i, "\xe2\x96\x81", 3) == 0) {
            text_append(out, text + copied, i - copied);
            text_add(out, " ");
            copied = i + 3;
        }
    }
    text_append(out, text + copied, n - copied);
}

static void add_composed(Digest *digest, const char *text, size_t n)
{
    Text back = {0};
    composed(&back, digest->name, text, n);
    digest_add(digest, text, n, &back);
    text_release(&back);
}

typedef void (*Check)(const Tokenizer *tokenizer, const char *name, const Json *expected);

static void with_each(Check check)
{
    for (size_t i = 0; golden_of("tokenizers", i); i++) {
        const Json *expected = golden_of("tokenizers", i);
        const char *name = json_string(json_get(expected, "name"), NULL);
        Tokenizer *tokenizer = open_shared(name);
        check(tokenizer, name, expected);
        tokenizer_free(tokenizer);
    }
}

static void check_rows(const Tokenizer *tokenizer, const char *name, const Json *expected)
{
    static const char *const keys[] = {"question", "answer"};
    char path[4096], *bytes;
    size_t n;
    Error error;
    shared_path(path, "data/gsm8k/train.jsonl");
    assert_int_equal(file_read(&bytes, &n, path, 1 << 24, &error), STATUS_OK);
    Digest digest = digest_begin(tokenizer, name, TOKENIZER_ADD_SPECIAL);
    int row = 0;
    for (const char *line = bytes, *end; line < bytes + n; line = end + 1, row++) {
        JsonDocument *document;
        end = memchr(line, '\n', (size_t)(bytes + n - line));
        end = end ? end : bytes + n;
        assert_int_equal(json_parse(&document, line, (size_t)(end - line), &error), STATUS_OK);
        for (int i = 0; i < 2; i++) {
            size_t length;
            const char *text = json_string(json_get(json_root(document), keys[i]), &length);
            add_composed(&digest, text, length);
        }
        json_free(document);
        if (row == 1999) {
            digest_end(&digest, json_get(expected, "gsm8k"), "rows of GSM8K");
            digest = digest_begin(tokenizer, name, TOKENIZER_ADD_SPECIAL);
        }
    }
    char hex[SHA256_HEX_SIZE];
    sha256_finish(digest.hash, hex);
    assert_int_equal(row, 7473);
    free(bytes);
}

static void rows_of_gsm8k_have_the_ids_of_hugging_face_and_come_back(void **state)
{
    (void)state;
    with_each(check_rows);
}

static void add_character(Text *text, int32_t c)
{
    char bytes[4];
    size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = n; i-- > 1; c >>= 6) {
        bytes[i] = (char)(0x80 | (c & 0x3f));
    }
    bytes[0] = (char)(n == 1 ? c : (0xf00 >> n & 0xff) | c);
    text_append(text, bytes, n);
}

static void check_characters(const Tokenizer *tokenizer, const char *name, const Json *expected)
{
    Text text = {0};
    bool lacks_controls = strcmp(name, "smollm2") == 0;
    const char *between = strcmp(name, "qwen2.5") == 0 ? "\n" : ""; /* see tokenizer_golden.py */
    for (int32_t c = 0; c < 0x110000; c++) {
        bool control = (c > 0 && c < 32 && c != '\t' && c != '\n' && c != '\r') || c == 127;
        if (unicode_assigned(c) && !(lacks_controls && control)) {
            text_add(&text, text.n ? between : "");
            add_character(&text, c);
        }
    }
    Digest digest = digest_begin(tokenizer, name, 0);
    add_composed(&digest, text.bytes, text.n);
    digest_end(&digest, json_get(expected, "characters"), "all characters");
    text_release(&text);
}

static void all_characters_have_the_ids_of_hugging_face_and_come_back(void **state)
{
    (void)state;
    with_each(check_characters);
}

static void check_million(const Tokenizer *tokenizer, const char *name, const Json *expected)
{
    static const char *const atoms[] = {" ", "a", "\n", "^", "0", "\xcc\x81", "\xf0\x9f\x9a\x80"};
    for (size_t i = 0; i < sizeof atoms / sizeof *atoms; i++) {
        Text text = {0};
        for (int n = 0; n < 1000000; n++) {
            text_add(&text, atoms[i]);
        }
        Digest digest = digest_begin(tokenizer, name, 0);
        digest_add(&digest, text.bytes, text.n, NULL);
        digest_end(&digest, json_at(json_get(expected, "million"), i), atoms[i]);
        text_release(&text);
    }
}

static void a_million_of_one_thing_has_the_ids_of_hugging_face_and_comes_back(void **state)
{
    (void)state;
    with_each(check_million);
}

/* special: the texts hold names of special tokens, which Hugging Face always parses. */
static void check_texts(const Tokenizer *tokenizer, const char *name, const Json *expected)
{
    Digest digest = digest_begin(tokenizer, name, TOKENIZER_PARSE_SPECIAL);
    for (size_t i = 0; golden_of("texts", i); i++) {
        size_t n;
        const char *text = json_string(golden_of("texts", i), &n);
        TokenList ids = {0};
        Error error;
        if (tokenizer_encode(tokenizer, text, n, digest.flags, &ids, &error)) {
            fail_msg("%s: %s", name, error.message);
        }
        sha256_update(digest.hash, ids.ids, ids.n * sizeof *ids.ids);
        digest.n += (int64_t)ids.n;
        token_list_release(&ids);
    }
    digest_end(&digest, json_get(expected, "texts"), "awkward texts");
}

static void awkward_texts_have_the_ids_of_hugging_face(void **state)
{
    (void)state;
    with_each(check_texts);
}

static void steps_of_other_files_give_the_ids_of_hugging_face(void **state)
{
    (void)state;
    for (size_t i = 0; golden_of("steps", i); i++) {
        const Json *expected = golden_of("steps", i);
        const char *name = json_string(json_get(expected, "name"), NULL);
        const char *steps = json_string(json_get(expected, "steps"), NULL);
        char path[4096], file[64], *bytes;
        size_t n;
        Error error;
        snprintf(file, sizeof file, "data/tokenizers/%s/tokenizer.json", name);
        shared_path(path, file);
        assert_int_equal(file_read(&bytes, &n, path, 1 << 24, &error), STATUS_OK);
        const char *from = strstr(bytes, "\"normalizer\"");
        const char *to = strstr(bytes, "\"post_processor\"");
        Text json = {0};
        text_append(&json, bytes, (size_t)(from - bytes));
        text_add(&json, steps);
        text_add(&json, to);
        snprintf(path, sizeof path, "/tmp/test_tokenizer_golden_%d.json", (int)getpid());
        assert_int_equal(file_write(path, json.bytes, json.n, &error), STATUS_OK);
        Tokenizer *tokenizer = NULL;
        Status status = tokenizer_open(&tokenizer, path, &error);
        unlink(path);
        if (status) {
            fail_msg("%s: %s", steps, error.message);
        }
        check_texts(tokenizer, steps, expected);
        tokenizer_free(tokenizer);
        text_release(&json);
        free(bytes);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_of_gsm8k_have_the_ids_of_hugging_face_and_come_back),
        cmocka_unit_test(all_characters_have_the_ids_of_hugging_face_and_come_back),
        cmocka_unit_test(a_million_of_one_thing_has_the_ids_of_hugging_face_and_comes_back),
        cmocka_unit_test(awkward_texts_have_the_ids_of_hugging_face),
        cmocka_unit_test(steps_of_other_files_give_the_ids_of_hugging_face),
    };
    Error error;
    if (json_read(&golden, SOURCE_DIR "/tests/data/tokenizers/golden.json", 1 << 24, &error)) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    json_free(golden);
    return failed;
}
