/* Text of strangers on a page of ours. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/unicode.h"
#include "notebooks-export/report_parts.h"

/* Characters that steer how text is shown, or that no text should hold. */
static bool is_unseen(int32_t c)
{
    return (c >= 0x80 && c < 0xa0) || c == 0x61c || c == 0x200e || c == 0x200f ||
           (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069) || c == 0xfeff ||
           (c >= 0xfdd0 && c <= 0xfdef) || (c & 0xfffe) == 0xfffe;
}

void html_visible(Text *out, const char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        int32_t c;
        size_t length = utf8_decode(&c, s + i, n - i);
        if (length == 0) {
            text_add(out, "\xef\xbf\xbd");
            i++;
            continue;
        }
        if (c == '\r' && i + 1 < n && s[i + 1] == '\n') {
            i++;
            continue;
        }
        if ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7f) { /* U+2400: signs for controls */
            char sign[3] = {(char)0xe2, (char)0x90, (char)(0x80 + (c == 0x7f ? 0x21 : c))};
            text_append(out, sign, 3);
        } else if (is_unseen(c)) {
            text_printf(out, "\xe2\x9f\xa8U+%04X\xe2\x9f\xa9", (unsigned)c);
        } else {
            text_append(out, s + i, length);
        }
        i += length;
    }
}

void html_bytes(Text *out, const char *s, size_t n)
{
    Text seen = {0};
    html_visible(&seen, s, n);
    for (size_t i = 0; i < seen.n; i++) {
        char c = seen.bytes[i];
        const char *entity = c == '&'    ? "&amp;"
                             : c == '<'  ? "&lt;"
                             : c == '>'  ? "&gt;"
                             : c == '"'  ? "&quot;"
                             : c == '\'' ? "&#39;"
                                         : NULL;
        if (entity) {
            text_add(out, entity);
        } else {
            text_append(out, &c, 1);
        }
    }
    text_release(&seen);
}

void html_text(Text *out, const char *s)
{
    if (s) {
        html_bytes(out, s, strlen(s));
    }
}

void html_start(Text *out, const char *s, size_t n)
{
    html_bytes(out, s, strnlen(s, n));
}

void html_shell_word(Text *out, const char *s)
{
    static const char plain[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:=+-";
    if (*s && strspn(s, plain) == strlen(s)) {
        html_text(out, s);
        return;
    }
    Text quoted = {0};
    text_add(&quoted, "'");
    for (; *s; s++) {
        if (*s == '\'') {
            text_add(&quoted, "'\\''");
        } else {
            text_append(&quoted, s, 1);
        }
    }
    text_add(&quoted, "'");
    html_text(out, text_string(&quoted));
    text_release(&quoted);
}

void html_number(Text *out, double value, int digits)
{
    if (isfinite(value)) {
        text_printf(out, "%.*g", digits, value);
    } else {
        text_add(out, "\xe2\x80\x93");
    }
}

void html_estimate(Text *out, double value, double standard_error)
{
    if (!isfinite(value) || !(standard_error > 0) || !isfinite(standard_error)) {
        html_number(out, value, 4);
        return;
    }
    double decimals = 1 - floor(log10(standard_error));
    text_printf(out, "%.*f", (int)fmin(12, fmax(0, decimals)), value);
}

void html_p_value(Text *out, double p)
{
    if (p < 0.001) {
        text_printf(out, "%.1e", p);
    } else {
        html_number(out, p, 2);
    }
}

void json_text(Text *json, const char *s)
{
    Text seen = {0};
    html_visible(&seen, s ? s : "", s ? strlen(s) : 0);
    text_json_string(json, text_string(&seen), seen.n);
    text_release(&seen);
}

void json_number(Text *json, double value, int digits)
{
    if (isfinite(value)) {
        text_printf(json, "%.*g", digits, value == 0 ? 0.0 : value);
    } else {
        text_add(json, "null");
    }
}

void html_json(Text *out, const Text *json)
{
    size_t from = 0;
    for (size_t i = 0; i < json->n; i++) {
        char c = json->bytes[i];
        if (c == '<' || c == '>' || c == '&') {
            text_append(out, json->bytes + from, i - from);
            text_printf(out, "\\u%04x", (unsigned)c);
            from = i + 1;
        }
    }
    if (json->n) {
        text_append(out, json->bytes + from, json->n - from);
    }
}

const char *text_at(const Frame *frame, const char *column, size_t row)
{
    const char *text = frame_text(frame, column, row);
    return text ? text : "";
}

const double *numbers_at(const Frame *frame, const char *column)
{
    const FrameColumn *found = frame_column(frame, column);
    return found && found->numeric ? found->numbers : NULL;
}

void html_fill(Text *out, const char *text, const Slot *slots, size_t n_slots)
{
    for (;;) {
        const char *open = strstr(text, "{{"), *close = open ? strstr(open, "}}") : NULL;
        if (!close) {
            text_add(out, text);
            return;
        }
        text_append(out, text, (size_t)(open - text));
        const Slot *slot = NULL;
        size_t n = (size_t)(close - open) - 2;
        for (size_t i = 0; i < n_slots; i++) {
            if (strlen(slots[i].name) == n && memcmp(slots[i].name, open + 2, n) == 0) {
                slot = &slots[i];
            }
        }
        if (!slot) {
            abort(); /* a template of ours without its value */
        }
        text_append(out, slot->value, slot->n);
        text = close + 2;
    }
}
