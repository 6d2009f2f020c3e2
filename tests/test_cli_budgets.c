/* A comparison of points of the plan space from outside: a sweep over whole adapters, test rows
 * scored at the chosen rates alone, one table. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tests/cli_run.h"

static void write_config(void)
{
    FILE *file = fopen("points.json", "wb");
    assert_non_null(file);
    fputs("{\"experiment\": \"points\", \"model\": \"abacus\", \"method\": \"sft\", \"steps\": 2,\n"
          " \"data\": {\"train\": \"" SOURCE_DIR
          "/models/abacus/train.jsonl\", \"dev\": \"" SOURCE_DIR
          "/models/abacus/dev.jsonl\", \"eval\": \"" SOURCE_DIR "/models/abacus/test.jsonl\"},\n"
          " \"sft\": {\"batch_size\": 2}, \"eval\": {\"every\": 0, \"rows\": 3, "
          "\"max_new_tokens\": 4},\n"
          " \"sweep\": [{\"adapter\": [{\"budget\": 2}, {\"method\": \"lora\", \"rank\": 1}],\n"
          "  \"optimizer.lr\": [1e-3, 2e-3], \"seed\": [1, 2]},\n"
          "  {\"adapter\": [{\"method\": \"full\"}], \"optimizer.lr\": [1e-4]}]}\n",
          file);
    assert_int_equal(fclose(file), 0);
}

static void expect(const char *arguments, int code, const char *out, const char *err)
{
    Run r = run(arguments);
    if (r.code != code || !strstr(r.out, out) || !strstr(r.err, err)) {
        fail_msg("%s: code %d\n%s\n%s", arguments, r.code, r.out, r.err);
    }
    run_free(&r);
}

static void points_are_swept_chosen_scored_once_and_shown(void **state)
{
    (void)state;
    write_config();
    expect("budgets", 1, "", "there are no results yet");
    expect("sweep points.json", 0, "", "9 of 9 runs done");
    /* Without test rows the held-out ones are shown. */
    expect("budgets -o csv", 0, "dev.jsonl[0:3]", "");
    expect("eval points.json --chosen --rows 4", 0, "extractor", "");
    /* Two seeds each of the two points, and full: five runs and the base, the other four were left
     * alone. */
    expect("query -o csv \"SELECT count(DISTINCT run_id) FROM evaluation WHERE task LIKE 'test%'\"",
           0, "6\r\n", "");
    expect("query -o csv \"SELECT count(DISTINCT run_id) FROM evaluation WHERE task LIKE 'dev%'\"",
           0, "10\r\n", "");
    expect("budgets -o json", 0,
           "\"point\": \"tinylora r=2 u=1 groups=2 tiled\", \"budget\": 2, \"bytes\": 8", "");
    expect("budgets -o json", 0, "test.jsonl[0:4]", "");
    expect("budgets -o md --metric strict", 0, "| (base model) |", "");
    expect("budgets", 0, "lora r=1", "full training");
    expect("budgets --task nowhere", 2, "", "no done run was scored by \"reward\" on \"nowhere\"");
    expect("budgets --experiment pints", 2, "", "points");
    expect("eval --run ab --chosen", 2, "", "--chosen is of a CONFIG's cells");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(points_are_swept_chosen_scored_once_and_shown)};
    return cmocka_run_group_tests(tests, run_setup, run_teardown);
}
