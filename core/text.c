/* A growing byte string. Running out of memory for one ends the program: what goes in was
 * read and bounded before. */
#include "core/text.h"

#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/unicode.h"

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

void text_json_string(Text *text, const char *bytes, size_t n)
{
    text_append(text, "\"", 1);
    for (size_t i = 0; i < n;) {
        unsigned char c = (unsigned char)bytes[i];
        int32_t code;
        size_t length = utf8_decode(&code, bytes + i, n - i);
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

void text_duration(Text *text, double seconds)
{
    if (!(seconds >= 0 && seconds < 1e12)) {
        text_add(text, "?");
        return;
    }
    long s = lround(seconds);
    if (s >= 48 * 3600) {
        text_printf(text, "%ldd%02ldh", s / 86400, s / 3600 % 24);
    } else if (s >= 3600) {
        text_printf(text, "%ldh%02ldm", s / 3600, s / 60 % 60);
    } else if (s >= 60) {
        text_printf(text, "%ldm%02lds", s / 60, s % 60);
    } else {
        text_printf(text, "%lds", s);
    }
}

const char *text_string(const Text *text)
{
    return text->bytes ? text->bytes : "";
}
