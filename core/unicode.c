/* The one user of utf8proc. */
#include "core/unicode.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum {
    FIRST_COMPOSING = 0x300, /* no character below composes with the one before it */
    LONG_PIECE = 1 << 16     /* bytes normalised at once, where the text allows it */
};

typedef struct {
    int32_t first, last;
} Range;

/* Letters and numbers of Unicode 15.1 and 16.0, which utf8proc 2.8 does not know and the readers of
 * tokenizer.json do. */
static const Range new_letters[] = {
    {0x1c89, 0x1c8a},   {0xa7cb, 0xa7cd},   {0xa7da, 0xa7dc},   {0x105c0, 0x105f3},
    {0x10d4a, 0x10d65}, {0x10d6f, 0x10d85}, {0x10ec2, 0x10ec4}, {0x11380, 0x11389},
    {0x1138b, 0x1138b}, {0x1138e, 0x1138e}, {0x11390, 0x113b5}, {0x113b7, 0x113b7},
    {0x113d1, 0x113d1}, {0x113d3, 0x113d3}, {0x11bc0, 0x11be0}, {0x13460, 0x143fa},
    {0x16100, 0x1611d}, {0x16d40, 0x16d6c}, {0x18cff, 0x18cff}, {0x1e5d0, 0x1e5ed},
    {0x1e5f0, 0x1e5f0}, {0x2ebf0, 0x2ee5d}};
static const Range new_numbers[] = {{0x10d40, 0x10d49}, {0x116d0, 0x116e3}, {0x11bf0, 0x11bf9},
                                    {0x16130, 0x16139}, {0x16d70, 0x16d79}, {0x1ccf0, 0x1ccf9},
                                    {0x1e5f1, 0x1e5fa}};

static bool in_ranges(int32_t c, const Range *ranges, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (c >= ranges[i].first && c <= ranges[i].last) {
            return true;
        }
    }
    return false;
}

static UnicodeClass class_of_unassigned(int32_t c)
{
    if (in_ranges(c, new_letters, sizeof new_letters / sizeof *new_letters)) {
        return UNICODE_LETTER;
    }
    return in_ranges(c, new_numbers, sizeof new_numbers / sizeof *new_numbers) ? UNICODE_NUMBER
                                                                               : UNICODE_OTHER;
}

UnicodeClass unicode_class(int32_t c)
{
    switch (c) {
    case 0x20:
    case 0x85:
    case 0xa0:
    case 0x1680:
    case 0x2028:
    case 0x2029:
    case 0x202f:
    case 0x205f:
    case 0x3000:
        return UNICODE_SPACE;
    default:
        break;
    }
    if ((c >= 0x09 && c <= 0x0d) || (c >= 0x2000 && c <= 0x200a)) {
        return UNICODE_SPACE;
    }
    switch (utf8proc_category(c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
        return UNICODE_LETTER;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
        return UNICODE_NUMBER;
    case UTF8PROC_CATEGORY_CN:
        return class_of_unassigned(c);
    default:
        return UNICODE_OTHER;
    }
}

bool unicode_assigned(int32_t c)
{
    utf8proc_category_t category = utf8proc_category(c);
    return category != UTF8PROC_CATEGORY_CN && category != UTF8PROC_CATEGORY_CS;
}

size_t utf8_decode(int32_t *c, const char *s, size_t n)
{
    const unsigned char *b = (const unsigned char *)s;
    if (b[0] < 0x80) {
        *c = b[0];
        return 1;
    }
    size_t length = b[0] >= 0xf0 ? 4 : b[0] >= 0xe0 ? 3 : 2;
    if (b[0] < 0xc2 || b[0] > 0xf4 || length > n) {
        return 0;
    }
    int32_t value = b[0] & (0x7f >> length);
    for (size_t i = 1; i < length; i++) {
        if ((b[i] & 0xc0) != 0x80) {
            return 0;
        }
        value = value << 6 | (b[i] & 0x3f);
    }
    static const int32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    if (value < least[length] || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff)) {
        return 0;
    }
    *c = value;
    return length;
}

size_t utf8_valid_prefix(const char *s, size_t n)
{
    size_t i = 0;
    while (i < n) {
        uint64_t eight;
        if (n - i >= 8) {
            memcpy(&eight, s + i, 8);
            if (!(eight & 0x8080808080808080u)) {
                i += 8;
                continue;
            }
        }
        int32_t c;
        size_t length = utf8_decode(&c, s + i, n - i);
        if (length == 0) {
            break;
        }
        i += length;
    }
    return i;
}

int utf8_shown(const char *s, size_t n, size_t limit)
{
    if (n > limit) {
        n = limit;
        while (n > 0 && ((unsigned char)s[n] & 0xc0) == 0x80) {
            n--;
        }
    }
    return (int)n;
}

bool unicode_nfc_may_change(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)s[i] >= 0xcc) { /* lead byte of U+0300 and above */
            return true;
        }
    }
    return false;
}

typedef struct {
    int32_t c;
    uint8_t class; /* canonical combining class */
    size_t place;
} Mark;

static int compare_marks(const void *left, const void *right)
{
    const Mark *a = left, *b = right;
    if (a->class != b->class) {
        return a->class > b->class ? 1 : -1;
    }
    return (a->place > b->place) - (a->place < b->place);
}

static uint8_t combining_class(int32_t c)
{
    return (uint8_t)utf8proc_get_property(c)->combining_class;
}

static void *take(size_t n)
{
    void *memory = malloc(n);
    if (!memory) {
        abort();
    }
    return memory;
}

static void sort_marks(int32_t *c, size_t n)
{
    Mark *marks = take(n * sizeof *marks);
    for (size_t i = 0; i < n; i++) {
        marks[i] = (Mark){c[i], combining_class(c[i]), i};
    }
    qsort(marks, n, sizeof *marks, compare_marks);
    for (size_t i = 0; i < n; i++) {
        c[i] = marks[i].c;
    }
    free(marks);
}

/* Stable order by combining class inside each run of marks. utf8proc does it by neighbours'
 * exchange, which is quadratic in hostile text. */
static void order_marks(int32_t *c, size_t n)
{
    for (size_t i = 0; i < n;) {
        size_t m = 0;
        bool sorted = true;
        for (uint8_t before = 0; i + m < n; m++) {
            uint8_t class = combining_class(c[i + m]);
            if (class == 0) {
                break;
            }
            sorted = sorted && before <= class;
            before = class;
        }
        if (!sorted) {
            sort_marks(c + i, m);
        }
        i += m ? m : 1;
    }
}

/* A piece that begins where composition cannot reach back over. */
static void nfc_piece(Text *out, const char *s, size_t n)
{
    /* A canonical decomposition has at most 4 code points. */
    int32_t *c = take((n * 4 + 4) * sizeof *c);
    size_t m = 0;
    for (size_t i = 0; i < n;) {
        int32_t point;
        i += utf8_decode(&point, s + i, n - i);
        m += (size_t)utf8proc_decompose_char(point, c + m, 4, UTF8PROC_DECOMPOSE | UTF8PROC_STABLE,
                                             NULL);
    }
    order_marks(c, m);
    utf8proc_ssize_t composed =
        utf8proc_normalize_utf32(c, (utf8proc_ssize_t)m, UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    for (utf8proc_ssize_t i = 0; i < composed; i++) {
        utf8proc_uint8_t bytes[4];
        utf8proc_ssize_t length = utf8proc_encode_char(c[i], bytes);
        text_append(out, (const char *)bytes, (size_t)length);
    }
    free(c);
}

/* Letters start anew, but for the vowels and finals of Hangul. */
static bool never_composes_back(int32_t c)
{
    return unicode_class(c) == UNICODE_LETTER && !(c >= 0x1100 && c <= 0x11ff);
}

void unicode_nfc(Text *out, const char *s, size_t n)
{
    /* Copied as it is: up to the last character below U+0300 before one above. */
    size_t copied = 0, last = 0;
    for (size_t i = 0; i < n;) {
        int32_t c = 0;
        size_t length = utf8_decode(&c, s + i, n - i);
        if (c < FIRST_COMPOSING) {
            last = i;
            i += length;
            continue;
        }
        text_append(out, s + copied, last - copied);
        size_t end = i;
        while (end < n) {
            length = utf8_decode(&c, s + end, n - end);
            if (c < FIRST_COMPOSING || (end - last > LONG_PIECE && never_composes_back(c))) {
                break;
            }
            end += length;
        }
        nfc_piece(out, s + last, end - last);
        copied = last = i = end;
    }
    text_append(out, s + copied, n - copied);
}
