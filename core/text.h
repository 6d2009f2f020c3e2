/* A growing byte string: messages, JSON, SQL results, decoded completions. May hold NUL bytes. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

typedef struct {
    char *bytes; /* always NUL-terminated once something was added; NULL when empty */
    size_t n;
    size_t capacity;
} Text;

void text_release(Text *text);
void text_clear(Text *text); /* n = 0, keeps the memory */
void text_append(Text *text, const char *bytes, size_t n);
void text_add(Text *text, const char *string);
void text_printf(Text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void text_vprintf(Text *text, const char *format, __builtin_va_list arguments)
    __attribute__((format(printf, 2, 0)));

/* A quoted JSON string; invalid UTF-8 becomes U+FFFD, control characters are escaped. */
void text_json_string(Text *text, const char *bytes, size_t n);

/* A JSON number: %.17g; NaN and infinities become null. */
void text_json_number(Text *text, double value);

/* "3d04h" from two days on, "3h05m", "4m09s" or "12s"; "?" where the number is not finite or
 * negative. */
void text_duration(Text *text, double seconds);

/* bytes, or "" when nothing was added. */
const char *text_string(const Text *text);
