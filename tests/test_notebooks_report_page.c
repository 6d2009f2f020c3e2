/* The page in a browser: what is drawn, and what pointer, touch and keys do. Needs Chromium. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "notebooks-export/report.h"
#include "tests/notebooks_fixture.h"

static bool have_browser;

static void write_page(const char *path, const char *bytes, size_t n)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, n, file), n);
    assert_int_equal(fclose(file), 0);
}

/* The document after its scripts ran, malloc'ed; what the console said into "console". */
static char *browse(const char *page, int width)
{
    char command[1024];
    snprintf(
        command, sizeof command,
        "timeout 120 chromium --headless=new --no-sandbox --disable-gpu --enable-logging=stderr "
        "--user-data-dir='%s/profile' --virtual-time-budget=5000 --window-size=%d,800 "
        "--dump-dom 'file://%s/%s' > dom 2> log; grep CONSOLE log > console",
        fixture_folder, width, fixture_folder, page);
    if (system(command) == -1) {
        abort();
    }
    return fixture_slurp("dom", NULL);
}

static Text build(void)
{
    Store *store;
    Error error = {0};
    Text page = {0};
    fixture_check(store_open(&store, "results.db", STORE_READ, 0, &error), &error);
    const ReportRequest request = {.store = store, .version = "0"};
    fixture_check(report_build(&page, &request, &error), &error);
    store_close(store);
    return page;
}

static void has(const char *text, const char *words)
{
    if (!strstr(text, words)) {
        const char *result = strstr(text, "<pre id=\"result\"");
        fail_msg("lacks \"%s\"\n%s", words, result ? result : "");
    }
}

static void charts_are_drawn_under_the_policy_and_nothing_is_complained_of(void **state)
{
    (void)state;
    if (!have_browser) {
        skip();
    }
    Text page = build();
    write_page("page.html", page.bytes, page.n);
    for (int width = 360; width <= 1280; width += 920) {
        char *dom = browse("page.html", width), *console = fixture_slurp("console", NULL);
        assert_string_equal(console, "");
        has(dom, "class=\"line\"");
        has(dom, "class=\"band\"");
        has(dom, "class=\"contour");
        has(dom, "aria-sort=\"descending\"");
        assert_null(strstr(dom, "<p class=\"warning\">The charts"));
        free(dom);
        free(console);
    }
    text_release(&page);
}

/* The page with the driver in it, which the policy would not let run. */
static char *drive(const char *head, int width)
{
    Text page = build(), driven = {0};
    char *driver = fixture_slurp(SOURCE_DIR "/tests/report_driver.html", NULL);
    const char *policy = strstr(page.bytes, "<meta http-equiv"),
               *end = strstr(page.bytes, "</body>");
    assert_true(policy && end);
    text_append(&driven, page.bytes, (size_t)(policy - page.bytes));
    text_add(&driven, head);
    policy = strchr(policy, '>') + 1;
    text_append(&driven, policy, (size_t)(end - policy));
    text_add(&driven, driver);
    text_add(&driven, end);
    write_page("driven.html", driven.bytes, driven.n);
    text_release(&page);
    text_release(&driven);
    free(driver);
    return browse("driven.html", width);
}

static void pointer_touch_and_keys_tell_values(void **state)
{
    (void)state;
    static const char *const expected[] = {
        "width: true",
        "base: base model 0.250",
        "first: descending aaaa0000 0.650",
        "rates up: ascending none 0.01 10",
        "rates down: descending 10",
        "missing last: bbbb0000",
        "filter: 1 of 9, 1, base true",
        "score: 0.650",
        /* the failed run has no seed beside it, so that its curve comes first */
        "curve keys: run bbbb0000 / 13 scalars, rate 10, seed 1 / step 2: reward 0.26",
        "curve left: hidden",
        "curve pointer: ",
        "curve touch: ",
        "curve axis: step | loss (nats per token)",
        "curve hidden: 1",
        "map: loss 2.558 \xc2\xb1 0.021 / v_1 0.1, v_2 0",
        "map tip: loss 2.558 \xc2\xb1 0.021 / v_1 0.1, v_2 0",
        "slices: 2",
        "hole: loss not finite: a hole / v_1 \xe2\x88\x92"
        "0.05, v_2 0.3",
        "missing: loss not computed yet / v_1 0.05, v_2 \xe2\x88\x92"
        "0.3",
        "map keys: loss 1.284 \xc2\xb1 0.021 / v_1 0, v_2 0",
        "contours: true",
        "no contours: 0",
        "glyphs: base best",
        "metric: accuracy (share)",
        "theme: dark true Theme: dark",
        "remembered: dark",
    };
    if (!have_browser) {
        skip();
    }
    char *dom = drive("", 1280);
    assert_null(strstr(dom, "\nerror: "));
    for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++) {
        has(dom, expected[i]);
    }
    assert_null(strstr(dom, "curve pointer: hidden"));
    assert_null(strstr(dom, "curve touch: hidden"));
    free(dom);
}

static void phone_has_no_sideways_scroll_and_no_storage_is_no_error(void **state)
{
    (void)state;
    if (!have_browser) {
        skip();
    }
    char *dom = drive("<script>Object.defineProperty(window, 'localStorage', {get() { throw new "
                      "DOMException('no', 'SecurityError'); }});</script>",
                      360);
    char *console = fixture_slurp("console", NULL);
    assert_string_equal(console, "");
    assert_null(strstr(dom, "\nerror: "));
    has(dom, "width: true");
    has(dom, "theme: dark true");
    has(dom, "remembered: not");
    has(dom, "map: loss 2.558");
    free(dom);
    free(console);
}

static int setup(void **state)
{
    have_browser = system("command -v chromium > /dev/null 2>&1") == 0;
    if (!have_browser) {
        fprintf(stderr, "skipped: there is no chromium\n");
    }
    return fixture_setup(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(charts_are_drawn_under_the_policy_and_nothing_is_complained_of),
        cmocka_unit_test(pointer_touch_and_keys_tell_values),
        cmocka_unit_test(phone_has_no_sideways_scroll_and_no_storage_is_no_error),
    };
    return cmocka_run_group_tests(tests, setup, fixture_teardown);
}
