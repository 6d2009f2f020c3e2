/* JSON Lines by the rules: the malformed corpus with its line numbers, and each message by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/json.h"
#include "rl/dataset.h"
#include "tests/shared.h"

static char path[] = "/tmp/test_rl_dataset_XXXXXX";

static void write_file(const char *bytes, size_t n)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, n, file), n);
    fclose(file);
}

static void refuses(const char *text, size_t n, const char *expected)
{
    Dataset dataset;
    Error error = {""};
    write_file(text, n);
    assert_int_equal(dataset_open(&dataset, path, "question", "answer", &error), STATUS_REFUSED);
    if (!strstr(error.message, expected) || !strstr(error.message, path)) {
        fail_msg("\"%s\" does not name the file and \"%s\"", error.message, expected);
    }
}

#define REFUSES(text, expected) refuses(text, sizeof(text) - 1, expected)

static void every_broken_rule_is_named_with_its_line(void **state)
{
    (void)state;
    REFUSES("", "no rows");
    REFUSES("\n \r\n", "no rows");
    REFUSES("{\"question\":\"a\",\"answer\":\"b\"}\n{\"question\":\"a\"}\n",
            "line 2: field \"answer\" is missing");
    REFUSES("{\"question\":\"a\",\"answer\":3}", "line 1: field \"answer\" is ");
    REFUSES("{\"question\":\"a\\u0000c\",\"answer\":\"\"}",
            "line 1: field \"question\" holds a NUL");
    REFUSES("\n[1]", "line 2: ");
    REFUSES("{\"question\":\"a\",\"answer\":\"\"}\n{\"question\":\"\",\"answer\":\"\"}\n",
            "line 2: an empty row: neither question nor answer");
    REFUSES("{\"question\":\"a\",\"answer\":\"b\",\"id\":7}\n\n"
            "{\"question\":\"a\",\"answer\":\"b\",\"id\":\"7\"}\n"
            "{\"question\":\"a\",\"answer\":\"b\",\"id\":7}\n",
            "line 4: id \"7\" was already on line 1");
    REFUSES("{\"Question\":\"a\",\"answer\":\"b\"}", "field \"question\" is missing");
    Error error;
    Dataset dataset;
    assert_int_equal(dataset_open(&dataset, "/nonexistent.jsonl", "q", "a", &error),
                     STATUS_REFUSED);
    assert_non_null(strstr(error.message, "/nonexistent.jsonl"));
    assert_int_equal(dataset_open(&dataset, "/tmp", "q", "a", &error), STATUS_REFUSED);
    assert_non_null(strstr(error.message, "not a regular file"));
}

static void rows_keep_order_lines_and_bytes(void **state)
{
    (void)state;
    const char text[] =
        "\xEF\xBB\xBF{\"q\":\"\\u00e9 <s>\",\"a\":\"\"}\n\n{\"x\":[1],\"a\":\"z\\n\","
        "\"q\":\"\"}\r\n";
    write_file(text, sizeof text - 1);
    Dataset dataset;
    Error error;
    assert_int_equal(dataset_open(&dataset, path, "q", "a", &error), STATUS_OK);
    assert_int_equal(dataset.n_rows, 2);
    assert_string_equal(dataset.rows[0].question, "\xC3\xA9 <s>");
    assert_int_equal(dataset.rows[0].n_question, 6);
    assert_string_equal(dataset.rows[0].answer, "");
    assert_int_equal(dataset.rows[1].line, 3);
    assert_string_equal(dataset.rows[1].answer, "z\n");
    assert_int_equal(dataset.rows[1].n_question, 0);
    assert_int_equal(strlen(dataset.sha256), 64);
    dataset_close(&dataset);
}

/* The rows of Stanford's Alpaca, whose input may be empty. */
static void a_text_of_fields_leaves_out_lines_that_are_empty(void **state)
{
    (void)state;
    const char rows[] = "[\n{\"instruction\": \"Add.\", \"input\": \"1, 2\", \"output\": \"3\"},\n"
                        "{\"instruction\": \"Greet.\", \"input\": \"\", \"output\": \"Hi {you}\"}]";
    const char text[] = "# {instruction}\n{input}{instruction}\n{input}\n{ }";
    char array[64];
    Dataset dataset;
    Error error = {""};
    snprintf(array, sizeof array, "%s.json", path);
    FILE *file = fopen(array, "wb");
    assert_non_null(file);
    fputs(rows, file);
    fclose(file);
    assert_int_equal(
        dataset_open(&dataset, array, "{instruction}\nGiven: {input}", "output", &error),
        STATUS_OK);
    assert_int_equal(dataset.n_rows, 2);
    assert_string_equal(dataset.rows[0].question, "Add.\nGiven: 1, 2");
    assert_string_equal(dataset.rows[1].question, "Greet.");
    assert_int_equal(dataset.rows[1].n_question, 6);
    assert_string_equal(dataset.rows[1].answer, "Hi {you}");
    assert_int_equal(dataset.rows[1].line, 3);
    dataset_close(&dataset);
    assert_int_equal(dataset_open(&dataset, array, text, "output", &error), STATUS_REFUSED);
    assert_non_null(strstr(error.message, "row 1: line 2: field \" \" is missing"));
    assert_int_equal(dataset_open(&dataset, array, "{open", "output", &error), STATUS_OK);
    assert_string_equal(dataset.rows[0].question, "{open");
    dataset_close(&dataset);
    file = fopen(array, "wb");
    fputs("{\"instruction\": \"a\"}", file);
    fclose(file);
    assert_int_equal(dataset_open(&dataset, array, "instruction", "output", &error),
                     STATUS_REFUSED);
    assert_non_null(strstr(error.message, "expected an array of rows"));
    unlink(array);
}

static void verify_wants_a_marked_number_at_the_end(void **state)
{
    (void)state;
    static const struct {
        const char *answer;
        int right;
    } cases[] = {
        {"#### 18", 1}, {"a\\n#### -1,234.5 \\n", 1}, {"#### $7", 1}, {"18", 0}, {"#### abc", 0},
        {"####", 0},    {"#### 3 #### x3", 0},        {"#### .", 0},  {"", 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[200];
        int n = snprintf(text, sizeof text, "{\"question\":\"q\",\"answer\":\"%s\"}\n",
                         cases[i].answer);
        write_file(text, (size_t)n);
        Error error = {""};
        int n_rows = -1;
        Status status = dataset_verify(path, &n_rows, NULL, &error);
        assert_int_equal(status, cases[i].right ? STATUS_OK : STATUS_REFUSED);
        assert_int_equal(n_rows, cases[i].right ? 1 : -1);
        assert_true(cases[i].right || strstr(error.message, "line 1: "));
    }
    Error error = {""};
    static const char mute[] = "{\"question\":\"\",\"answer\":\"#### 18\"}\n";
    write_file(mute, sizeof mute - 1);
    assert_int_equal(dataset_verify(path, NULL, NULL, &error), STATUS_REFUSED);
    assert_non_null(strstr(error.message, "line 1: the question is empty"));
}

/* Every case of kind dataset in the corpus: the verdict, the number of rows, the line in the
 * message. */
static void the_corpus_of_bad_files_is_judged_right(void **state)
{
    (void)state;
    char name[4096];
    shared_path(name, "badfiles/manifest.json");
    JsonDocument *document;
    Error error;
    assert_int_equal(json_read(&document, name, (size_t)1 << 24, &error), STATUS_OK);
    const Json *cases = json_get(json_root(document), "cases");
    int n_judged = 0;
    for (size_t i = 0; i < json_size(cases); i++) {
        const Json *item = json_at(cases, i);
        if (strcmp(json_string(json_get(item, "kind"), NULL), "dataset")) {
            continue;
        }
        const char *file = json_string(json_get(item, "file"), NULL);
        char relative[1024];
        snprintf(relative, sizeof relative, "badfiles/%s", file);
        shared_path(name, relative);
        int n_rows = -1;
        int64_t expected;
        Status status = dataset_verify(name, &n_rows, NULL, &error);
        bool accept = !strcmp(json_string(json_get(item, "expected"), NULL), "accept");
        if ((status == STATUS_OK) != accept) {
            fail_msg("%s: %s", file, status ? error.message : "accepted");
        }
        if (accept && json_int64(json_get(item, "examples"), &expected)) {
            assert_int_equal(n_rows, expected);
        }
        if (!accept && json_int64(json_get(item, "line"), &expected)) {
            char line[40];
            snprintf(line, sizeof line, "line %d:", (int)expected);
            if (!strstr(error.message, line)) {
                fail_msg("%s: \"%s\" does not name %s", file, error.message, line);
            }
        }
        n_judged++;
    }
    assert_true(n_judged > 20);
    json_free(document);
}

static void numbers_stand_in_texts_of_fields_as_people_write_them(void **state)
{
    (void)state;
    const char text[] =
        "{\"b\":\"B.\",\"q\":\"Q?\",\"a\":145.0}\n{\"b\":\"\",\"q\":\"q\",\"a\":-0.50}\n"
        "{\"b\":\"c\",\"q\":\"d\",\"a\":7}\n{\"b\":\"c\",\"q\":\"d\",\"a\":\"7.0\"}\n"
        "{\"b\":\"c\",\"q\":\"d\",\"a\":1e30}\n";
    static const char *const answers[] = {"145", "-0.50", "7", "7.0", "1e30"};
    Dataset dataset;
    Error error;
    write_file(text, sizeof text - 1);
    assert_int_equal(dataset_open(&dataset, path, "{b} {q}", "{a}", &error), STATUS_OK);
    for (int i = 0; i < 5; i++) {
        assert_string_equal(dataset.rows[i].answer, answers[i]);
    }
    assert_string_equal(dataset.rows[0].question, "B. Q?");
    dataset_close(&dataset);
    assert_int_equal(dataset_open(&dataset, path, "q", "a", &error), STATUS_REFUSED);
    assert_non_null(strstr(error.message, "line 1: field \"a\" is a number, expected a string"));
}

static void twins_and_answers_without_a_number_are_counted(void **state)
{
    (void)state;
    const char text[] =
        "{\"question\":\"x\",\"answer\":\"7\"}\n{\"question\":\"y\",\"answer\":\"b\"}\n"
        "{\"question\":\"x\",\"answer\":\"8\"}\n{\"question\":\"y\",\"answer\":\"b\"}\n"
        "{\"question\":\"x\",\"answer\":\"7\"}\n{\"question\":\"x\",\"answer\":\"7\"}\n";
    Dataset dataset;
    Error error;
    int line = -1, earlier = -1;
    write_file(text, sizeof text - 1);
    assert_int_equal(dataset_open(&dataset, path, "question", "answer", &error), STATUS_OK);
    assert_int_equal(dataset_twins(&dataset, &line, &earlier), 3);
    assert_true(line == 4 && earlier == 2);
    assert_int_equal(dataset_wordy(&dataset, &line), 2);
    assert_int_equal(line, 2);
    dataset.n_rows = 3;
    line = -1;
    assert_int_equal(dataset_twins(&dataset, &line, &earlier), 0);
    assert_int_equal(line, -1);
    dataset_close(&dataset);
}

static void real_data_sets_are_read_whole(void **state)
{
    (void)state;
    static const struct {
        const char *file;
        int rows, verified;
    } sets[] = {{"data/gsm8k/train.jsonl", 7473, 1},
                {"data/gsm8k/test.jsonl", 1319, 1},
                {"data/digit-completion/test.jsonl", 0, 0}};
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        char name[4096];
        shared_path(name, sets[i].file);
        Dataset dataset;
        Error error;
        assert_int_equal(dataset_open(&dataset, name, "question", "answer", &error), STATUS_OK);
        assert_true(!sets[i].rows || dataset.n_rows == sets[i].rows);
        assert_int_equal(dataset_verify(name, NULL, NULL, &error) == STATUS_OK, sets[i].verified);
        dataset_close(&dataset);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_broken_rule_is_named_with_its_line),
        cmocka_unit_test(rows_keep_order_lines_and_bytes),
        cmocka_unit_test(a_text_of_fields_leaves_out_lines_that_are_empty),
        cmocka_unit_test(verify_wants_a_marked_number_at_the_end),
        cmocka_unit_test(the_corpus_of_bad_files_is_judged_right),
        cmocka_unit_test(numbers_stand_in_texts_of_fields_as_people_write_them),
        cmocka_unit_test(twins_and_answers_without_a_number_are_counted),
        cmocka_unit_test(real_data_sets_are_read_whole),
    };
    int file = mkstemp(path);
    if (file < 0) {
        return 1;
    }
    close(file);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    return failed;
}
