/* The steps of strip_string in their order, mistakes included. Where Python raises (an index past
 * the end, "x/2" whose sides are no numbers), is_equiv compares the texts as they are. */
#include "rl/latex.h"

#include <string.h>

#include "core/text.h"

/* string.replace(from, to) */
static void replace(Text *text, const char *from, const char *to)
{
    Text made = {0};
    size_t n = strlen(from);
    for (size_t i = 0; i < text->n;) {
        if (text->n - i >= n && !memcmp(text->bytes + i, from, n)) {
            text_add(&made, to);
            i += n;
        } else {
            text_append(&made, text->bytes + i++, 1);
        }
    }
    text_append(&made, "", 0);
    text_release(text);
    *text = made;
}

/* Place of the word at or after `from`; text->n when it is not there. */
static size_t find(const Text *text, const char *word, size_t from)
{
    size_t n = strlen(word);
    for (size_t i = from; i + n <= text->n; i++) {
        if (!memcmp(text->bytes + i, word, n)) {
            return i;
        }
    }
    return text->n;
}

static size_t count(const Text *text, char c)
{
    size_t n = 0;
    for (size_t i = 0; i < text->n; i++) {
        n += text->bytes[i] == c;
    }
    return n;
}

/* Bytes of the character at i. */
static size_t character(const Text *text, size_t i)
{
    size_t n = 1;
    while (i + n < text->n && ((unsigned char)text->bytes[i + n] & 0xC0) == 0x80) {
        n++;
    }
    return n;
}

static void put(Text *text, Text *made)
{
    text_append(made, "", 0);
    text_release(text);
    *text = *made;
}

/* remove_right_units: what stands before the only "\text{ " */
static bool remove_units(Text *text)
{
    static const char word[] = "\\text{ ";
    size_t at = find(text, word, 0);
    if (at < text->n) {
        if (find(text, word, at + strlen(word)) < text->n) {
            return false;
        }
        text->n = at;
        text->bytes[at] = 0;
    }
    return true;
}

/* "k = 5" is "5": one "=", at most two characters before it. */
static void remove_name(Text *text)
{
    if (count(text, '=') != 1) {
        return;
    }
    size_t at = (size_t)((char *)memchr(text->bytes, '=', text->n) - text->bytes);
    size_t characters = 0;
    for (size_t i = 0; i < at; i += character(text, i)) {
        characters++;
    }
    if (characters <= 2) {
        memmove(text->bytes, text->bytes + at + 1, text->n - at); /* with its NUL */
        text->n -= at + 1;
    }
}

/* \sqrt3 is \sqrt{3} */
static bool fix_roots(Text *text)
{
    Text made = {0};
    size_t i = 0;
    for (size_t at; (at = find(text, "\\sqrt", i)) < text->n;) {
        text_append(&made, text->bytes + i, at + 5 - i);
        i = at + 5;
        /* the pieces of split() are empty at the end, and between two roots */
        if (i == text->n || find(text, "\\sqrt", i) == i) {
            text_release(&made);
            return false;
        }
        if (text->bytes[i] != '{') {
            size_t n = character(text, i);
            text_add(&made, "{");
            text_append(&made, text->bytes + i, n);
            text_add(&made, "}");
            i += n;
        }
    }
    text_append(&made, text->bytes + i, text->n - i);
    put(text, &made);
    return true;
}

/* \frac12 is \frac{1}{2}, \frac1{72} is \frac{1}{72}; a piece of one character leaves all as it is
 */
static bool fix_fractions(Text *text)
{
    Text made = {0};
    size_t i = 0;
    for (size_t at; (at = find(text, "\\frac", i)) < text->n;) {
        text_append(&made, text->bytes + i, at + 5 - i);
        i = at + 5;
        size_t end = find(text, "\\frac", i); /* of this piece of split() */
        if (i == end) {
            text_release(&made);
            return false;
        }
        if (text->bytes[i] == '{') {
            continue;
        }
        size_t a = character(text, i);
        if (i + a == end) {
            text_release(&made);
            return true;
        }
        size_t b = character(text, i + a);
        bool braced = text->bytes[i + a] == '{';
        text_add(&made, "{");
        text_append(&made, text->bytes + i, a);
        text_add(&made, braced ? "}" : "}{");
        text_append(&made, text->bytes + i + a, b);
        text_add(&made, braced ? "" : "}");
        i += a + b;
    }
    text_append(&made, text->bytes + i, text->n - i);
    put(text, &made);
    return true;
}

/* Would int() take it, and is it written as str() writes it? */
static bool is_integer(const char *text, size_t n, bool *canonical)
{
    size_t i = n && (text[0] == '-' || text[0] == '+');
    bool digit = false, underscore = false;
    size_t first = i;
    for (; i < n; i++) {
        if (text[i] >= '0' && text[i] <= '9') {
            digit = true;
        } else if (text[i] == '_' && digit) { /* between two digits alone */
            underscore = true;
            digit = false;
        } else {
            return false;
        }
    }
    bool zero_first = n - first > 1 && text[first] == '0';
    bool minus_zero = n == 2 && text[0] == '-' && text[1] == '0';
    *canonical = digit && !underscore && !zero_first && !minus_zero && text[0] != '+';
    return digit;
}

/* 1/2 is \frac{1}{2} */
static bool fix_slash(Text *text)
{
    bool canonical[2];
    if (count(text, '/') != 1) {
        return true;
    }
    size_t at = (size_t)((char *)memchr(text->bytes, '/', text->n) - text->bytes);
    const char *after = text->bytes + at + 1;
    size_t n = text->n - at - 1;
    if (!is_integer(text->bytes, at, &canonical[0]) || !is_integer(after, n, &canonical[1])) {
        return false;
    }
    if (canonical[0] && canonical[1]) {
        Text made = {0};
        text_printf(&made, "\\frac{%.*s}{%.*s}", (int)at, text->bytes, (int)n, after);
        put(text, &made);
    }
    return true;
}

/* strip_string; false where it raises. */
static bool strip(Text *text)
{
    static const char *const before_units[][2] = {
        {"\n", ""},     {"\\!", ""},     {"\\\\", "\\"},    {"tfrac", "frac"}, {"dfrac", "frac"},
        {"\\left", ""}, {"\\right", ""}, {"^{\\circ}", ""}, {"^\\circ", ""},   {"\\$", ""}};
    static const char *const after_units[][2] = {{"\\%", ""}, {" .", " 0."}, {"{.", "{0."}};
    for (size_t i = 0; i < sizeof before_units / sizeof *before_units; i++) {
        replace(text, before_units[i][0], before_units[i][1]);
    }
    if (!remove_units(text)) {
        return false;
    }
    for (size_t i = 0; i < sizeof after_units / sizeof *after_units; i++) {
        replace(text, after_units[i][0], after_units[i][1]);
    }
    if (!text->n) {
        return true;
    }
    if (text->bytes[0] == '.') {
        Text made = {0};
        text_printf(&made, "0%s", text->bytes);
        put(text, &made);
    }
    remove_name(text);
    if (!fix_roots(text)) {
        return false;
    }
    replace(text, " ", "");
    if (!fix_fractions(text)) {
        return false;
    }
    if (text->n == 3 && !memcmp(text->bytes, "0.5", 3)) {
        Text made = {0};
        text_add(&made, "\\frac{1}{2}");
        put(text, &made);
    }
    return fix_slash(text);
}

bool latex_equal(const char *a, size_t n, const char *b, size_t m)
{
    Text one = {0}, other = {0};
    text_append(&one, a, n);
    text_append(&other, b, m);
    bool stripped = strip(&one) && strip(&other);
    bool equal = stripped ? one.n == other.n && (!one.n || !memcmp(one.bytes, other.bytes, one.n))
                          : n == m && (!n || !memcmp(a, b, n));
    text_release(&one);
    text_release(&other);
    return equal;
}
