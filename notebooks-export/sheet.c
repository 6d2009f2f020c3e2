/* Cells as text, then as HTML or in columns. */
#include "notebooks-export/sheet.h"

#include <math.h>
#include <string.h>

#include "core/unicode.h"

/* Control characters are blanks, broken UTF-8 is U+FFFD. Returns the number of characters. */
static size_t add_clean(Text *out, const char *text)
{
    size_t n_chars = 0;
    for (size_t n = strlen(text), i = 0; i < n; n_chars++) {
        int32_t code;
        size_t length = utf8_decode(&code, text + i, n - i);
        if (length == 0) {
            text_add(out, "\xef\xbf\xbd");
            i++;
            continue;
        }
        if (code < 0x20 || code == 0x7f) {
            text_add(out, " ");
        } else {
            text_append(out, text + i, length);
        }
        i += length;
    }
    return n_chars;
}

/* row 0: the header. Returns the number of characters. */
static size_t add_cell(Text *out, const FrameColumn *column, size_t row)
{
    if (row == 0) {
        return add_clean(out, column->name);
    }
    if (!column->numeric) {
        return column->texts[row - 1] ? add_clean(out, column->texts[row - 1]) : 0;
    }
    double value = column->numbers[row - 1];
    size_t before = out->n;
    if (!isnan(value)) {
        bool whole = value == floor(value) && fabs(value) < 1e15;
        text_printf(out, whole ? "%.0f" : "%.4g", value);
    }
    return out->n - before;
}

static void add_html(Text *out, const char *text)
{
    for (; *text; text++) {
        switch (*text) {
        case '&':
            text_add(out, "&amp;");
            break;
        case '<':
            text_add(out, "&lt;");
            break;
        case '>':
            text_add(out, "&gt;");
            break;
        default:
            text_append(out, text, 1);
        }
    }
}

void sheet_html(Text *out, const Frame *frame)
{
    Text cell = {0};
    text_add(out, "<table>\n");
    for (size_t row = 0; row <= frame->n_rows; row++) {
        const char *tag = row ? "td" : "th";
        text_add(out, "<tr>");
        for (size_t k = 0; k < frame->n_columns; k++) {
            const FrameColumn *column = &frame->columns[k];
            text_clear(&cell);
            add_cell(&cell, column, row);
            text_printf(out, "<%s style=\"text-align: %s\">", tag,
                        column->numeric ? "right; white-space: nowrap" : "left");
            add_html(out, text_string(&cell));
            text_printf(out, "</%s>", tag);
        }
        text_add(out, "</tr>\n");
    }
    text_add(out, "</table>");
    text_release(&cell);
}

static void add_blanks(Text *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        text_append(out, " ", 1);
    }
}

void sheet_plain(Text *out, const Frame *frame)
{
    Text cell = {0};
    size_t width[64] = {0};
    for (size_t k = 0; k < frame->n_columns && k < 64; k++) {
        for (size_t row = 0; row <= frame->n_rows; row++) {
            text_clear(&cell);
            size_t n = add_cell(&cell, &frame->columns[k], row);
            width[k] = n > width[k] ? n : width[k];
        }
    }
    for (size_t row = 0; row <= frame->n_rows; row++) {
        for (size_t k = 0; k < frame->n_columns && k < 64; k++) {
            text_clear(&cell);
            size_t n = add_cell(&cell, &frame->columns[k], row);
            add_blanks(out, k ? 2 : 0);
            add_blanks(out, frame->columns[k].numeric ? width[k] - n : 0);
            text_add(out, text_string(&cell));
            add_blanks(out, frame->columns[k].numeric ? 0 : width[k] - n);
        }
        while (out->n && out->bytes[out->n - 1] == ' ') {
            out->bytes[--out->n] = 0;
        }
        text_add(out, row < frame->n_rows ? "\n" : "");
    }
    text_release(&cell);
}
