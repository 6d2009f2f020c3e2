/* A growing byte string. Running out of memory for text ends the program by assert-like abort:
 * the sizes here come from what was already read and bounded. */
#include "core/text.h"

#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void text_release(Text *text)
{
    free(text->bytes);
    *text = (Text){0};
}

void text_clear(Text *text)
{
    text->n = 0;
    if (text->bytes) {
        text->bytes[0] = 0;
    }
}

static void reserve(Text *text, size_t more)
{
    size_t need = text->n + more + 1;
    if (need <= text->capacity) {
        return;
    }
    size_t capacity = text->capacity ? text->capacity : 64;
    while (capacity < need) {
        capacity *= 2;
    }
    char *bytes = realloc(text->bytes, capacity);
    if (!bytes) {
        abort();
    }
    text->bytes = bytes;
    text->capacity = capacity;
}

void text_append(Text *text, const char *bytes, size_t n)
{
    reserve(text, n);
    if (n) {
        memcpy(text->bytes + text->n, bytes, n);
    }
    text->n += n;
    text->bytes[text->n] = 0;
}

void text_add(Text *text, const char *string)
{
    text_append(text, string, strlen(string));
}

void text_vprintf(Text *text, const char *format, __builtin_va_list arguments)
{
    va_list copy;
    va_copy(copy, arguments);
    int n = vsnprintf(NULL, 0, format, copy);
    va_end(copy);
    if (n < 0) {
        return;
    }
    reserve(text, (size_t)n);
    vsnprintf(text->bytes + text->n, (size_t)n + 1, format, arguments);
    text->n += (size_t)n;
}

void text_printf(Text *text, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    text_vprintf(text, format, arguments);
    va_end(arguments);
}

/* Length of the valid UTF-8 sequence at s (1 to 4), or 0. */
static size_t utf8_length(const unsigned char *s, size_t n)
{
    if (s[0] < 0x80) {
        return 1;
    }
    size_t length = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if (s[0] < 0xc2 || s[0] > 0xf4 || length > n) {
        return 0;
    }
    for (size_t i = 1; i < length; i++) {
        if ((s[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
        (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f)) {
        return 0;
    }
    return length;
}

void text_json_string(Text *text, const char *bytes, size_t n)
{
    text_append(text, "\"", 1);
    for (size_t i = 0; i < n;) {
        unsigned char c = (unsigned char)bytes[i];
        size_t length = utf8_length((const unsigned char *)bytes + i, n - i);
        if (length == 0) {
            text_add(text, "\xef\xbf\xbd");
            i++;
        } else if (c == '"' || c == '\\') {
            char escaped[2] = {'\\', (char)c};
            text_append(text, escaped, 2);
            i++;
        } else if (c == '\n') {
            text_add(text, "\\n");
            i++;
        } else if (c < 0x20 || c == 0x7f) {
            text_printf(text, "\\u%04x", c);
            i++;
        } else {
            text_append(text, bytes + i, length);
            i += length;
        }
    }
    text_append(text, "\"", 1);
}

void text_json_number(Text *text, double value)
{
    if (isfinite(value)) {
        text_printf(text, "%.17g", value);
    } else {
        text_add(text, "null");
    }
}

const char *text_string(const Text *text)
{
    return text->bytes ? text->bytes : "";
}
