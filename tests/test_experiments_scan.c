/* The settings of a scan and the words for what differs between two identities; the rest of a scan
 * is driven from outside (test_cli_scan*.c). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "analysis/measure.h"
#include "experiments/identity.h"
#include "experiments/scan_settings.h"

static RunSpec spec;
static Error error;

static int begin(void **state)
{
    (void)state;
    settings_default(&spec);
    strcpy(spec.method, "scan");
    memset(&error, 0, sizeof error);
    return 0;
}

static void ranges_of_two_scalars_become_numbers(void **state)
{
    (void)state;
    assert_int_equal(scan_settle(&spec, &error), STATUS_OK);
    assert_string_equal(spec.scan.x, "-0.05:0.05:21");
    strcpy(spec.scan.x, "auto:41");
    strcpy(spec.scan.y, "-1e-1:0.250:7");
    assert_int_equal(scan_settle(&spec, &error), STATUS_OK);
    assert_string_equal(spec.scan.x, "-0.05:0.05:41");
    assert_string_equal(spec.scan.y, "-0.1:0.25:7"); /* the fewest digits, so one identity */
}

static void ranges_through_runs_wait_for_the_plane(void **state)
{
    (void)state;
    strcpy(spec.scan.directions, "pca");
    strcpy(spec.scan.run, "3f2a");
    assert_int_equal(scan_settle(&spec, &error), STATUS_OK);
    assert_string_equal(spec.scan.x, "auto:21");
    assert_int_equal(scan_settle(&spec, &error), STATUS_OK); /* settled twice it is the same */
    assert_string_equal(spec.scan.x, "auto:21");
}

static void two_indices_are_read_strictly(void **state)
{
    (void)state;
    static const char *const wrong[] = {"",    "1",    "1:",   ":1",   "1:2:3",
                                        "a:b", "-1:2", " 1:2", "1:2 ", "99999999999999999999:1"};
    size_t x, y;
    assert_int_equal(scan_axes_parse(&x, &y, "12:3", &error), STATUS_OK);
    assert_true(x == 12 && y == 3);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_equal(scan_axes_parse(&x, &y, wrong[i], &error), STATUS_USAGE);
        assert_non_null(strstr(error.message, "two indices of v"));
    }
}

static void values_become_bits_of_measure(void **state)
{
    (void)state;
    assert_int_equal(scan_metrics(&spec), MEASURE_LOSS);
    strcpy(spec.scan.values, "kl,loss,grad_norm");
    assert_int_equal(scan_metrics(&spec), MEASURE_LOSS | MEASURE_KL | MEASURE_GRAD_NORM);
    assert_true(spec_measures(&spec, "kl"));
    assert_false(spec_measures(&spec, "k")); /* a whole word */
}

static bool in_identity(const char *key)
{
    Text identity = {0}, quoted = {0};
    identity_members(&identity, &spec, NULL, 0);
    text_printf(&quoted, "\"%s\":", key);
    bool found = strstr(text_string(&identity), text_string(&quoted)) != NULL;
    text_release(&identity);
    text_release(&quoted);
    return found;
}

static void what_changes_no_number_is_not_in_the_identity(void **state)
{
    (void)state;
    static const char *const never[] = {"grpo.loss", "sft.batch_size", "optimizer.lr", "steps",
                                        "seed",      "eval.rows",      "data.train",   "data.dev"};
    for (size_t i = 0; i < sizeof never / sizeof never[0]; i++) {
        assert_false(in_identity(never[i]));
    }
    assert_true(in_identity("scan.x") && in_identity("scan.values") &&
                in_identity("data.template") && in_identity("adapter.seed"));
    assert_false(in_identity("eval.seed") || in_identity("reward.name") ||
                 in_identity("reward.extractor") || in_identity("scan.run"));
    strcpy(spec.scan.values, "accuracy");
    assert_true(in_identity("eval.seed") && in_identity("reward.extractor"));
    assert_false(in_identity("reward.name"));
    strcpy(spec.scan.values, "loss,reward");
    assert_true(in_identity("eval.temperature") && in_identity("reward.name"));
    strcpy(spec.scan.directions, "axes");
    assert_true(in_identity("scan.run") && in_identity("scan.axes"));
    assert_false(in_identity("scan.run_2") || in_identity("scan.seed"));
    strcpy(spec.method, "sft");
    assert_false(in_identity("scan.x") || in_identity("scan.rows"));
}

static void what_differs_is_told_by_its_name(void **state)
{
    (void)state;
    Text lines = {0}, keys = {0};
    identity_diff(&lines, &keys,
                  "{\"a\":1,\"data.template\":\"plain\",\"gone\":true,\"model.weights_sha256\":"
                  "\"00112233445566778899\",\"steps\":[1,2]}",
                  "{\"a\":1,\"data.template\":\"qa\",\"model.weights_sha256\":"
                  "\"99112233445566778899\",\"new\":0.5,\"steps\":[1,3]}",
                  "abacus", "train.jsonl");
    assert_string_equal(text_string(&lines),
                        "data.template: \"plain\" -> \"qa\"\n"
                        "gone: true -> (not there)\n"
                        "model.weights_sha256 (abacus): 001122334455.. -> 991122334455..\n"
                        "steps: [1, 2] -> [1, 3]\n"
                        "new: (not there) -> 0.5\n");
    assert_string_equal(text_string(&keys),
                        "data.template, gone, model.weights_sha256, steps, new");
    text_release(&lines);
    text_release(&keys);
}

static void identities_agree_on_a_part(void **state)
{
    (void)state;
    char key[128] = "";
    const char *one = "{\"adapter.seed\":1,\"adapter.u\":2,\"model.x\":\"a\"}";
    assert_true(identity_agrees(one, "{\"adapter.seed\":1,\"adapter.u\":2}", "adapter.", key));
    assert_false(identity_agrees(one, "{\"adapter.seed\":1,\"adapter.u\":3}", "adapter.", key));
    assert_string_equal(key, "adapter.u");
    assert_false(
        identity_agrees(one, "{\"adapter.seed\":1}", "adapter.", key)); /* it is not there */
    assert_false(identity_agrees("{\"adapter.seed\":1}", one, "adapter.", key));
    assert_string_equal(key, "adapter.u");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(ranges_of_two_scalars_become_numbers, begin),
        cmocka_unit_test_setup(ranges_through_runs_wait_for_the_plane, begin),
        cmocka_unit_test_setup(two_indices_are_read_strictly, begin),
        cmocka_unit_test_setup(values_become_bits_of_measure, begin),
        cmocka_unit_test_setup(what_changes_no_number_is_not_in_the_identity, begin),
        cmocka_unit_test_setup(what_differs_is_told_by_its_name, begin),
        cmocka_unit_test_setup(identities_agree_on_a_part, begin),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
