/* core/json: JSONTestSuite, every rule and its message, exact integers, large objects, files cut
 * and bent. */
#include "core/json.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/file.h"
#include "core/text.h"
#include "tests/shared.h"

static JsonDocument *parse(const char *text)
{
    JsonDocument *document = NULL;
    Error error = {0};
    if (json_parse(&document, text, strlen(text), &error) != STATUS_OK) {
        fail_msg("%s: %s", text, error.message);
    }
    return document;
}

static void every_broken_rule_is_named_with_its_place(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"", "line 1, column 1: the text ends where a value was expected"},
        {"{\"a\": 1,\n \"b\" 2}", "line 2, column 6: ':' was expected after a key"},
        {"{\"a\": 1,}", "line 1, column 9: a key in double quotes was expected"},
        {"{a: 1}", "line 1, column 2: a key in double quotes was expected"},
        {"[1 2]", "line 1, column 4: ',' or ']' was expected"},
        {"{\"a\": 1 2}", "line 1, column 9: ',' or '}' was expected"},
        {"[1,]", "line 1, column 4: a value was expected"},
        {"[01]", "line 1, column 3: a number starts with 0"},
        {"[-]", "line 1, column 3: a digit was expected"},
        {"[1.]", "line 1, column 4: a digit was expected"},
        {"[1e+]", "line 1, column 5: a digit was expected"},
        {"[NaN]", "line 1, column 2: a value was expected"},
        {"[tru", "line 1, column 2: a value was expected"},
        {"{} x", "line 1, column 4: text after the end of the value"},
        {"[\"a\nb\"]", "line 1, column 4: control character in a string"},
        {"[\"\\x41\"]", "line 1, column 3: unknown escape in a string"},
        {"[\"\\u00g0\"]", "line 1, column 3: \\u needs four hexadecimal digits"},
        {"[\"\\ud800\"]", "line 1, column 9: lone surrogate in a string"},
        {"[\"\\udc00\"]", "line 1, column 9: lone surrogate in a string"},
        {"[\"\\udc00\\udc00\"]", "line 1, column 9: lone surrogate in a string"},
        {"[\"\xc0\xaf\"]", "line 1, column 3: invalid UTF-8"},
        {"[\"abc", "line 1, column 6: a string does not end"},
        {"[\n{\"k\": 1,\n\"\\u006b\": 2}]", "line 3: key \"k\" is there twice"},
        {"\xef\xbb\xbf{}", "not JSON: starts with a UTF-8 byte order mark"},
        {"<!DOCTYPE html>", "not JSON: is an HTML page, not the file itself (a failed download?)"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        JsonDocument *document = NULL;
        Error error = {0};
        Status status = json_parse(&document, cases[i].text, strlen(cases[i].text), &error);
        assert_int_equal(status, STATUS_REFUSED);
        assert_string_equal(error.message, cases[i].message);
        assert_null(document);
    }
}

static void sixty_four_levels_are_read_and_sixty_five_refused(void **state)
{
    (void)state;
    char text[2 * 65 + 1];
    for (int depth = 64; depth <= 65; depth++) {
        memset(text, '[', depth);
        memset(text + depth, ']', depth);
        JsonDocument *document = NULL;
        Error error = {0};
        Status status = json_parse(&document, text, 2 * (size_t)depth, &error);
        assert_int_equal(status, depth == 64 ? STATUS_OK : STATUS_REFUSED);
        if (status != STATUS_OK) {
            assert_non_null(strstr(error.message, "nested deeper than 64 levels"));
        }
        json_free(document);
    }
}

static void values_come_back_as_written(void **state)
{
    (void)state;
    JsonDocument *document = parse("{\"a\": [1, \"x\\u00e9\\ud83d\\ude00\\n\", true, null],\n"
                                   " \"A\": {\"b\": false}, \"n\\u0000m\": \"p\\u0000q\"}");
    const Json *root = json_root(document);
    assert_int_equal(json_size(root), 3);
    const Json *list = json_get(root, "a");
    assert_int_equal(json_size(list), 4);
    size_t n;
    assert_string_equal(json_string(json_at(list, 1), &n), "x\xc3\xa9\xf0\x9f\x98\x80\n");
    assert_int_equal(n, 8);
    bool truth = false;
    assert_true(json_bool(json_at(list, 2), &truth) && truth);
    assert_int_equal(json_kind(json_at(list, 3)), JSON_NULL);
    assert_null(json_at(list, 4));
    assert_true(json_bool(json_get(json_get(root, "A"), "b"), &truth) && !truth);
    assert_int_equal(json_line(json_get(root, "A")), 2);
    assert_string_equal(json_key(root, 1), "A");
    /* A NUL cuts neither a key nor a value. */
    assert_string_equal(json_key(root, 2), "n\xc0\x80m");
    assert_null(json_get(root, "n"));
    assert_memory_equal(json_string(json_at(root, 2), &n), "p\0q", 3);
    assert_int_equal(n, 3);
    assert_null(json_string(json_at(root, 2), NULL));
    /* The wrong kind is absent, not a crash. */
    assert_null(json_get(list, "a"));
    assert_null(json_get(NULL, "a"));
    assert_null(json_string(list, NULL));
    assert_int_equal(json_kind(NULL), JSON_NULL);
    json_free(document);
}

static void integers_are_exact_or_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool fits;
        int64_t value;
    } cases[] = {
        {"0", true, 0},
        {"-0", true, 0},
        {"9007199254740993", true, 9007199254740993}, /* 2^53 + 1: a double would change it */
        {"9223372036854775807", true, INT64_MAX},
        {"9223372036854775808", false, 0},
        {"-9223372036854775808", true, INT64_MIN},
        {"-9223372036854775809", false, 0},
        {"4.0", true, 4},
        {"1e3", true, 1000},
        {"1.5e1", true, 15},
        {"12300e-2", true, 123},
        {"1E+2", true, 100},
        {"0e999999999999999999", true, 0},
        {"0.0e5", true, 0},
        {"32.5", false, 0},
        {"1e-1", false, 0},
        {"1e19", false, 0},
        {"1e30", false, 0},
        {"1e999999999999999999999", false, 0},
        {"1e-999999999999999999999", false, 0},
        {"0.000000000000000000001e21", true, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        JsonDocument *document = parse(cases[i].text);
        int64_t value = -77;
        bool fits = json_int64(json_root(document), &value);
        if (fits != cases[i].fits || value != (fits ? cases[i].value : -77)) {
            fail_msg("%s: %d %lld", cases[i].text, fits, (long long)value);
        }
        assert_string_equal(json_number_text(json_root(document)), cases[i].text);
        json_free(document);
    }
}

static void a_number_that_is_not_finite_is_no_double(void **state)
{
    (void)state;
    JsonDocument *document = parse("[1e999, -2.5e-3, true]");
    double value = 7;
    assert_false(json_double(json_at(json_root(document), 0), &value));
    assert_true(json_double(json_at(json_root(document), 1), &value));
    assert_true(value == -2.5e-3);
    assert_false(json_double(json_at(json_root(document), 2), &value));
    json_free(document);
}

/* Every key of a large object is found and a duplicate anywhere is refused. */
static void large_objects_are_indexed(void **state)
{
    (void)state;
    enum { N = 30000 };
    Text text = {0};
    text_add(&text, "{");
    for (int i = 0; i < N; i++) {
        text_printf(&text, "%s\"key %d\": %d", i ? ", " : "", i, i * 7);
    }
    text_add(&text, "}");
    JsonDocument *document = parse(text.bytes);
    for (int i = 0; i < N; i++) {
        char key[32];
        snprintf(key, sizeof key, "key %d", i);
        int64_t value;
        assert_true(json_int64(json_get(json_root(document), key), &value));
        assert_int_equal(value, i * 7);
    }
    assert_null(json_get(json_root(document), "key 30000"));
    json_free(document);
    text.bytes[text.n - 1] = ',';
    text_add(&text, "\"key 12345\": 0}");
    Error error = {0};
    assert_int_equal(json_parse(&document, text.bytes, text.n, &error), STATUS_REFUSED);
    assert_string_equal(error.message, "line 1: key \"key 12345\" is there twice");
    text_release(&text);
}

/* Under the sanitizers: a text cut at every byte and with every bit flipped neither crashes nor
 * reads past its end. */
static void cut_and_bent_texts_never_crash(void **state)
{
    (void)state;
    const char *whole =
        "{\"a\": [1, -2.5e+3, \"x\\u00e9\\ud83d\\ude00\xc3\xa9\", true, null], \"b\": "
        "{\"c\": {}, \"d\": []},\n\"e\": false, \"f\": 0, \"g\": 1, \"h\": 2, \"i\": 3, "
        "\"j\": 4, \"k\": 5, \"l\": 6}";
    size_t n = strlen(whole);
    for (size_t cut = 0; cut < n; cut++) {
        JsonDocument *document = NULL;
        char *exact = malloc(cut ? cut : 1);
        memcpy(exact, whole, cut);
        assert_int_equal(json_parse(&document, exact, cut, NULL), STATUS_REFUSED);
        free(exact);
    }
    for (size_t bit = 0; bit < 8 * n; bit++) {
        JsonDocument *document = NULL;
        char *bent = malloc(n);
        memcpy(bent, whole, n);
        bent[bit / 8] ^= (char)(1 << bit % 8);
        json_parse(&document, bent, n, NULL);
        json_free(document);
        free(bent);
    }
}

static void files_are_named_in_the_message(void **state)
{
    (void)state;
    JsonDocument *document = NULL;
    Error error = {0};
    assert_int_equal(json_read(&document, "/nonexistent/x.json", 100, &error), STATUS_FAILED);
    assert_string_equal(error.message,
                        "/nonexistent/x.json: cannot be opened: No such file or directory");
    assert_int_equal(json_read(&document, "/dev/zero", 100, &error), STATUS_REFUSED);
    assert_string_equal(error.message, "/dev/zero: is not a regular file");
    assert_int_equal(json_read(&document, "/", 100, &error), STATUS_REFUSED);
    assert_string_equal(error.message, "/: is a directory, a file was expected");
    char path[] = "test_core_json.tmp";
    assert_int_equal(file_write(path, "{\"a\": 1}", 8, &error), STATUS_OK);
    assert_int_equal(json_read(&document, path, 7, &error), STATUS_REFUSED);
    assert_string_equal(error.message, "test_core_json.tmp: has 8 bytes, at most 7 are read");
    assert_int_equal(json_read(&document, path, 8, &error), STATUS_OK);
    json_free(document);
    assert_int_equal(file_write(path, "{\"a\"", 4, &error), STATUS_OK);
    assert_int_equal(json_read(&document, path, 8, &error), STATUS_REFUSED);
    assert_string_equal(error.message,
                        "test_core_json.tmp: line 1, column 5: ':' was expected after a key");
    unlink(path);
}

/* Forty bytes of tree a byte of text: [0,0,0...] of a hostile header ends at 256 MiB. */
static void a_tree_that_grows_beyond_its_text_is_refused(void **state)
{
    (void)state;
    size_t n = (size_t)20 << 20;
    char *text = malloc(n);
    assert_non_null(text);
    for (size_t i = 0; i < n; i++) {
        text[i] = i == 0 ? '[' : i % 2 ? '0' : ',';
    }
    JsonDocument *document = NULL;
    Error error = {0};
    assert_int_equal(json_parse(&document, text, n, &error), STATUS_REFUSED);
    assert_non_null(strstr(error.message, "the values so far take 256 MiB of memory"));
    free(text);
}

/* The hash is of the bytes as they lie in the file, though strings are unescaped in place. */
static void a_document_knows_the_hash_of_its_file(void **state)
{
    (void)state;
    static const char text[] = "{\"a\\n\": \"\\u0041\"}";
    char path[] = "test_core_json.tmp", sha256[SHA256_HEX_SIZE];
    JsonDocument *document = NULL;
    assert_int_equal(file_write(path, text, sizeof text - 1, NULL), STATUS_OK);
    assert_int_equal(json_read(&document, path, 100, NULL), STATUS_OK);
    sha256_bytes(sha256, text, sizeof text - 1);
    assert_string_equal(json_sha256(document), sha256);
    json_free(document);
    document = parse("1");
    assert_string_equal(json_sha256(document), "");
    json_free(document);
    unlink(path);
}

/* The free cases: everything that is not clean UTF-8 or nests too deep is refused, every number is
 * kept as text. */
static const char *const free_but_accepted[] = {
    "i_number_double_huge_neg_exp.json", "i_number_huge_exp.json",
    "i_number_neg_int_huge_exp.json",    "i_number_pos_double_huge_exp.json",
    "i_number_real_neg_overflow.json",   "i_number_real_pos_overflow.json",
    "i_number_real_underflow.json",      "i_number_too_big_neg_int.json",
    "i_number_too_big_pos_int.json",     "i_number_very_big_negative_int.json",
};

/* Valid by the grammar; the rule of the second layer refuses a key that is there twice. */
static const char *const valid_but_refused[] = {
    "y_object_duplicated_key.json",
    "y_object_duplicated_key_and_value.json",
};

static bool is_among(const char *name, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (strcmp(name, list[i]) == 0) {
            return true;
        }
    }
    return false;
}

/* grammar: by json_check, to which a key may be there twice; else by json_read. */
static bool expected_to_be_accepted(const char *name, bool grammar)
{
    if (name[0] == 'i') {
        return is_among(name, free_but_accepted,
                        sizeof free_but_accepted / sizeof *free_but_accepted);
    }
    return name[0] == 'y' && (grammar || !is_among(name, valid_but_refused, 2));
}

static void json_test_suite_has_no_wrong_verdict(void **state)
{
    (void)state;
    char folder[FILE_PATH_MAX];
    shared_path(folder, "data/json/JSONTestSuite/test_parsing");
    DIR *files = opendir(folder);
    assert_non_null(files);
    int n_cases = 0, n_wrong = 0;
    for (struct dirent *entry; (entry = readdir(files)) != NULL;) {
        if (entry->d_name[0] == '.') {
            continue;
        }
        char path[FILE_PATH_MAX];
        assert_int_equal(path_join(path, folder, entry->d_name, NULL), STATUS_OK);
        JsonDocument *document = NULL;
        Error error = {0};
        Status status = json_read(&document, path, 1 << 20, &error);
        bool accepted = status == STATUS_OK;
        n_cases++;
        char sha256[SHA256_HEX_SIZE];
        bool valid = json_check(sha256, path, 1 << 20, NULL) == STATUS_OK;
        if (accepted != expected_to_be_accepted(entry->d_name, false) ||
            valid != expected_to_be_accepted(entry->d_name, true) ||
            (!accepted && status != STATUS_REFUSED)) {
            n_wrong++;
            print_error("%s: %s %s\n", entry->d_name, accepted ? "accepted" : "refused",
                        error.message);
        }
        json_free(document);
    }
    closedir(files);
    assert_true(n_cases >= 318);
    assert_int_equal(n_wrong, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_broken_rule_is_named_with_its_place),
        cmocka_unit_test(sixty_four_levels_are_read_and_sixty_five_refused),
        cmocka_unit_test(values_come_back_as_written),
        cmocka_unit_test(integers_are_exact_or_refused),
        cmocka_unit_test(a_number_that_is_not_finite_is_no_double),
        cmocka_unit_test(large_objects_are_indexed),
        cmocka_unit_test(cut_and_bent_texts_never_crash),
        cmocka_unit_test(files_are_named_in_the_message),
        cmocka_unit_test(a_tree_that_grows_beyond_its_text_is_refused),
        cmocka_unit_test(a_document_knows_the_hash_of_its_file),
        cmocka_unit_test(json_test_suite_has_no_wrong_verdict),
    };
    if (chdir(BUILD_DIR) != 0) { /* temporary files go there */
        return 1;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
