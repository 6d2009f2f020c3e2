/* The known pre-tokenizer patterns as scanners. Each looks at the text a bounded number of times,
 * whatever it is; a regular expression from a file is never run.
 *   GPT-2:   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 *   Qwen2:   (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}
 *            | ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
 *   Llama 3: the same with \p{N}{1,3} */
#include "core/tokenizer_private.h"

#include <string.h>

enum { CLASS_END = -1 };

/* The class of the character at i and its bytes; CLASS_END at the end. */
static inline int class_at(const char *text, size_t n, size_t i, size_t *length)
{
    if (i >= n) {
        return CLASS_END;
    }
    unsigned char b = (unsigned char)text[i];
    if (b < 0x80) {
        *length = 1;
        unsigned char lower = b | 0x20;
        return lower >= 'a' && lower <= 'z'      ? UNICODE_LETTER
               : b >= '0' && b <= '9'            ? UNICODE_NUMBER
               : b == ' ' || (b >= 9 && b <= 13) ? UNICODE_SPACE
                                                 : UNICODE_OTHER;
    }
    int32_t c;
    *length = utf8_decode(&c, text + i, n - i);
    return (int)unicode_class(c);
}

/* End of the run of that class from i on, of at most `most` characters. */
static size_t run_end(const char *text, size_t n, size_t i, int class, size_t most)
{
    size_t length;
    for (; most > 0 && class_at(text, n, i, &length) == class; most--) {
        i += length;
    }
    return i;
}

/* Bytes of a contraction at the apostrophe, or 0. fold: upper case too, and the long s. */
static size_t contraction(const char *text, size_t n, bool fold)
{
    if (n < 2 || text[0] != '\'') {
        return 0;
    }
    int mask = fold ? 0x20 : 0;
    int a = (unsigned char)text[1] | mask;
    int b = n > 2 ? (unsigned char)text[2] | mask : 0;
    if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) {
        return 3;
    }
    if (a == 's' || a == 't' || a == 'm' || a == 'd') {
        return 2;
    }
    if (fold && n > 2 && text[1] == '\xc5' && text[2] == '\xbf') { /* U+017F folds to s */
        return 3;
    }
    return 0;
}

/* \s+(?!\S)|\s+ : a run of space leaves its last character to what follows it. */
static size_t space_piece(const char *text, size_t n)
{
    size_t end = 0, last = 0, length;
    while (class_at(text, n, end, &length) == UNICODE_SPACE) {
        last = end;
        end += length;
    }
    return end < n && last > 0 ? last : end;
}

/* End of the last \r or \n in the run of space, or 0: \s*[\r\n]+ goes that far. */
static size_t newline_end(const char *text, size_t n)
{
    size_t end = 0, newline = 0, length;
    while (class_at(text, n, end, &length) == UNICODE_SPACE) {
        bool is_newline = text[end] == '\n' || text[end] == '\r';
        end += length;
        if (is_newline) {
            newline = end;
        }
    }
    return newline;
}

static size_t gpt2_piece(const char *text, size_t n)
{
    size_t end = contraction(text, n, false);
    if (end) {
        return end;
    }
    size_t length, start = text[0] == ' ' ? 1 : 0;
    int class = class_at(text, n, start, &length);
    if (class == CLASS_END || class == UNICODE_SPACE) {
        return space_piece(text, n);
    }
    return run_end(text, n, start, class, SIZE_MAX);
}

static size_t qwen2_piece(const char *text, size_t n, size_t digits)
{
    size_t end = contraction(text, n, true);
    if (end) {
        return end;
    }
    size_t first, second;
    int class = class_at(text, n, 0, &first);
    if (class == UNICODE_LETTER) {
        return run_end(text, n, 0, UNICODE_LETTER, SIZE_MAX);
    }
    if (class == UNICODE_NUMBER) {
        return run_end(text, n, 0, UNICODE_NUMBER, digits);
    }
    int next = class_at(text, n, first, &second);
    if (next == UNICODE_LETTER && text[0] != '\n' && text[0] != '\r') {
        return run_end(text, n, first, UNICODE_LETTER, SIZE_MAX);
    }
    if (class == UNICODE_OTHER || (text[0] == ' ' && next == UNICODE_OTHER)) {
        end = run_end(text, n, text[0] == ' ' ? 1 : 0, UNICODE_OTHER, SIZE_MAX);
        while (end < n && (text[end] == '\n' || text[end] == '\r')) {
            end++;
        }
        return end;
    }
    end = newline_end(text, n);
    return end ? end : space_piece(text, n);
}

static size_t digit_piece(const char *text, size_t n, size_t digits)
{
    size_t end = run_end(text, n, 0, UNICODE_NUMBER, digits), length;
    if (end == 0) {
        int class;
        while ((class = class_at(text, n, end, &length)) != CLASS_END && class != UNICODE_NUMBER) {
            end += length;
        }
    }
    return end;
}

/* Up to the next mark; a run of marks stays together, or each begins a piece. */
static size_t mark_piece(const char *text, size_t n, bool runs)
{
    const size_t n_mark = sizeof TOKENIZER_MARK - 1;
    bool in_run = runs;
    for (size_t i = 0; i < n;) {
        const char *hit = memchr(text + i, (unsigned char)TOKENIZER_MARK[0], n - i);
        if (!hit) {
            break;
        }
        size_t at = (size_t)(hit - text);
        bool mark = n - at >= n_mark && memcmp(hit, TOKENIZER_MARK, n_mark) == 0;
        in_run = in_run && mark && at == i;
        if (mark && at > 0 && !in_run) {
            return at;
        }
        i = at + (mark ? n_mark : 1);
    }
    return n;
}

size_t tokenizer_split_next(SplitRule rule, const char *text, size_t n)
{
    switch (rule) {
    case SPLIT_GPT2:
        return gpt2_piece(text, n);
    case SPLIT_QWEN2:
        return qwen2_piece(text, n, 1);
    case SPLIT_LLAMA3:
        return qwen2_piece(text, n, 3);
    case SPLIT_DIGITS:
        return digit_piece(text, n, 1);
    case SPLIT_DIGIT_RUNS:
        return digit_piece(text, n, SIZE_MAX);
    case SPLIT_MARKS:
        return mark_piece(text, n, false);
    case SPLIT_MARK_RUNS:
        return mark_piece(text, n, true);
    }
    return n;
}
