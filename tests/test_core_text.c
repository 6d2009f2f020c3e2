/* What a growing string adds beside bytes: durations, JSON. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "core/text.h"

static void says(double seconds, const char *expected)
{
    Text text = {0};
    text_duration(&text, seconds);
    assert_string_equal(text_string(&text), expected);
    text_release(&text);
}

static void durations_have_two_units_at_most(void **state)
{
    (void)state;
    says(0, "0s");
    says(12.4, "12s");
    says(59.6, "1m00s");
    says(249, "4m09s");
    says(3600 * 3 + 299, "3h04m");
    says(3600 * 47.5, "47h30m");
    says(86400 * 3 + 3600 * 4.5, "3d04h");
    says(NAN, "?");
    says(INFINITY, "?");
    says(-1, "?");
}

static void json_strings_escape_and_mend(void **state)
{
    (void)state;
    Text text = {0};
    text_json_string(&text, "a\"\\\n\x01\xc3(\xe2\x82\xac", 10);
    assert_string_equal(text.bytes, "\"a\\\"\\\\\\n\\u0001\xef\xbf\xbd(\xe2\x82\xac\"");
    text_clear(&text);
    text_json_number(&text, 0.1);
    text_add(&text, " ");
    text_json_number(&text, NAN);
    assert_string_equal(text.bytes, "0.10000000000000001 null");
    text_release(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(durations_have_two_units_at_most),
        cmocka_unit_test(json_strings_escape_and_mend),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
