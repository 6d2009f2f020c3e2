/* Unicode for tokenizers: UTF-8, the classes that pre-tokenizers split by, and NFC. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/text.h"

typedef enum {
    UNICODE_OTHER,
    UNICODE_LETTER, /* \p{L} */
    UNICODE_NUMBER, /* \p{N} */
    UNICODE_SPACE   /* \s: White_Space */
} UnicodeClass;

UnicodeClass unicode_class(int32_t c);
/* A character of Unicode 15.0, private use too; surrogates are none. */
bool unicode_assigned(int32_t c);

/* Bytes of the character at s (1 to 4), its code point in c; 0 when it is not valid UTF-8.
 * s: (n >= 1) bytes. */
size_t utf8_decode(int32_t *c, const char *s, size_t n);
/* n when all of s is valid UTF-8, else where the first bad byte is. */
size_t utf8_valid_prefix(const char *s, size_t n);
/* Bytes of s to show in a message: at most `limit`, not ending inside a character. */
int utf8_shown(const char *s, size_t n, size_t limit);

/* Canonical composition (UAX 15) of s, valid UTF-8, appended to out. Linear time, also for long
 * runs of combining marks. */
void unicode_nfc(Text *out, const char *s, size_t n);
/* False only when NFC certainly changes nothing: all characters are below U+0300. */
bool unicode_nfc_may_change(const char *s, size_t n);
