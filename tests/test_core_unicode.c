/* UTF-8, character classes and NFC, against the Unicode tables by hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/unicode.h"

static void utf8_is_decoded_and_its_malformed_forms_are_not(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t length;
        int32_t c;
    } cases[] = {
        {"A", 1, 'A'},
        {"\xc2\x80", 2, 0x80},
        {"\xdf\xbf", 2, 0x7ff},
        {"\xe0\xa0\x80", 3, 0x800},
        {"\xed\x9f\xbf", 3, 0xd7ff},
        {"\xee\x80\x80", 3, 0xe000},
        {"\xf0\x90\x80\x80", 4, 0x10000},
        {"\xf4\x8f\xbf\xbf", 4, 0x10ffff},
        {"\x80", 0, 0},
        {"\xc0\x80", 0, 0},
        {"\xc1\xbf", 0, 0},
        {"\xe0\x9f\xbf", 0, 0},
        {"\xed\xa0\x80", 0, 0},
        {"\xf0\x8f\xbf\xbf", 0, 0},
        {"\xf4\x90\x80\x80", 0, 0},
        {"\xf5\x80\x80\x80", 0, 0},
        {"\xe2\x82", 0, 0},
        {"\xc3(", 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int32_t c = -1;
        assert_int_equal(utf8_decode(&c, cases[i].bytes, strlen(cases[i].bytes)), cases[i].length);
        assert_int_equal(c, cases[i].length ? cases[i].c : -1);
    }
    assert_int_equal(utf8_valid_prefix("0123456789\xe2\x82\xac!", 14), 14);
    assert_int_equal(utf8_valid_prefix("0123456789\xe2\x82", 12), 10);
    assert_int_equal(utf8_shown("ab\xe2\x82\xac", 5, 4), 2);
    assert_int_equal(utf8_shown("ab", 2, 4), 2);
}

static void characters_have_the_classes_of_the_patterns(void **state)
{
    (void)state;
    static const struct {
        int32_t c;
        UnicodeClass class;
    } cases[] = {
        {'a', UNICODE_LETTER},     {0xaa, UNICODE_LETTER},    {0x5d0, UNICODE_LETTER},
        {0x4e00, UNICODE_LETTER},  {0x2ebf0, UNICODE_LETTER}, /* Unicode 15.1 */
        {0x105c0, UNICODE_LETTER},                            /* Unicode 16 */
        {'0', UNICODE_NUMBER},     {0xbd, UNICODE_NUMBER},    {0x2167, UNICODE_NUMBER},
        {0x663, UNICODE_NUMBER},   {0x10d40, UNICODE_NUMBER}, /* Unicode 16 */
        {' ', UNICODE_SPACE},      {'\r', UNICODE_SPACE},     {0x85, UNICODE_SPACE},
        {0xa0, UNICODE_SPACE},     {0x200a, UNICODE_SPACE},   {0x3000, UNICODE_SPACE},
        {0x200b, UNICODE_OTHER},   {0x1c, UNICODE_OTHER},     {0x301, UNICODE_OTHER},
        {'_', UNICODE_OTHER},      {0x1f680, UNICODE_OTHER},  {0x378, UNICODE_OTHER},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (unicode_class(cases[i].c) != cases[i].class) {
            fail_msg("U+%04X: class %d", (unsigned)cases[i].c, (int)unicode_class(cases[i].c));
        }
    }
}

static void assert_nfc(const char *text, const char *expected)
{
    Text out = {0};
    unicode_nfc(&out, text, strlen(text));
    assert_string_equal(text_string(&out), expected);
    text_release(&out);
}

static void text_is_composed_canonically(void **state)
{
    (void)state;
    assert_nfc("plain", "plain");
    assert_nfc("caf\x65\xcc\x81!", "caf\xc3\xa9!");
    /* The mark below sorts before the mark above; both compose: U+1E69. */
    assert_nfc("s\xcc\x87\xcc\xa3", "\xe1\xb9\xa9");
    /* Singletons: angstrom and ohm sign; composition exclusion U+0958 stays apart. */
    assert_nfc("\xe2\x84\xab\xe2\x84\xa6", "\xc3\x85\xce\xa9");
    assert_nfc("\xe0\xa5\x98", "\xe0\xa4\x95\xe0\xa4\xbc");
    /* Hangul by rule: L + V + T. */
    assert_nfc("\xe1\x84\x92\xe1\x85\xa1\xe1\x86\xab", "\xed\x95\x9c");
    assert_false(unicode_nfc_may_change("caf\xc3\xa9", 5));
    assert_true(unicode_nfc_may_change("e\xcc\x81", 3));
}

/* Marks in falling order of class are the worst case of an exchange sort. */
static void a_long_run_of_marks_is_sorted_stably(void **state)
{
    (void)state;
    enum { N = 50000 };
    Text text = {0}, out = {0};
    text_add(&text, "x");
    for (int i = 0; i < N; i++) {
        text_add(&text, i % 2 ? "\xcc\x80" : "\xcc\x81"); /* above: class 230, in this order */
    }
    for (int i = 0; i < N; i++) {
        text_add(&text, "\xcc\x96"); /* below: class 220 */
    }
    unicode_nfc(&out, text.bytes, text.n);
    assert_int_equal(out.n, text.n);
    for (int i = 0; i < N; i++) {
        assert_memory_equal(out.bytes + 1 + 2 * i, "\xcc\x96", 2);
        assert_memory_equal(out.bytes + 1 + 2 * (N + i), i % 2 ? "\xcc\x80" : "\xcc\x81", 2);
    }
    text_release(&text);
    text_release(&out);
}

/* Pieces are cut where composition cannot reach over the cut: as one, or in many parts, is the
 * same. */
static void long_text_is_composed_as_its_parts_are(void **state)
{
    (void)state;
    static const char unit[] = "\xe6\x97\xa5\xe1\x84\x92\xe1\x85\xa1\xe1\x86\xab\xce\xb1\xcc\x81";
    Text text = {0}, whole = {0}, parts = {0};
    for (int i = 0; i < 20000; i++) {
        text_append(&text, unit, sizeof unit - 1);
        unicode_nfc(&parts, unit, sizeof unit - 1);
    }
    unicode_nfc(&whole, text.bytes, text.n);
    assert_int_equal(whole.n, parts.n);
    assert_memory_equal(whole.bytes, parts.bytes, parts.n);
    text_release(&text);
    text_release(&whole);
    text_release(&parts);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(utf8_is_decoded_and_its_malformed_forms_are_not),
        cmocka_unit_test(characters_have_the_classes_of_the_patterns),
        cmocka_unit_test(text_is_composed_canonically),
        cmocka_unit_test(a_long_run_of_marks_is_sorted_stably),
        cmocka_unit_test(long_text_is_composed_as_its_parts_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
