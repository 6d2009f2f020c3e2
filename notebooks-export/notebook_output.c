/* What a cell shows before it ever ran: the answer of its SQL, the picture of its kind. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "notebooks-export/comparison.h"
#include "notebooks-export/notebook_parts.h"
#include "notebooks-export/sheet.h"

enum {
    PICTURE_MAX_BYTES = 16 << 20,
    COLUMN_PIXELS = 456, /* of a column of 8.5 cm on a screen, */
    WIDEST_PIXELS = 900, /* and of any picture */
    BASE64_LINE = 76,
    MAX_BINDS = 8
};

typedef struct {
    const char *values[MAX_BINDS];
    int names[MAX_BINDS]; /* index of the notebook's value */
    int n;
} Binds;

/* The notebook's value that a word begins with, or -1. */
static int find_value(const Notebook *notebook, const char *word)
{
    size_t n = strspn(word, "abcdefghijklmnopqrstuvwxyz_");
    for (int k = 0; n && k < notebook->n_values; k++) {
        if (strlen(notebook->values[k].name) == n &&
            strncmp(notebook->values[k].name, word, n) == 0) {
            return k;
        }
    }
    return -1;
}

/* :name, which Python binds by name, becomes ?1, ?2, ... */
static void number_names(Text *out, Binds *binds, const char *sql, size_t n,
                         const Notebook *notebook)
{
    for (size_t i = 0; i < n; i++) {
        int k = sql[i] == ':' ? find_value(notebook, sql + i + 1) : -1;
        if (k < 0) {
            text_append(out, sql + i, 1);
            continue;
        }
        int at = 0;
        while (at < binds->n && binds->names[at] != k) {
            at++;
        }
        if (at == binds->n) {
            assert(binds->n < MAX_BINDS);
            binds->names[at] = k;
            binds->values[binds->n++] = notebook->values[k].text;
        }
        text_printf(out, "?%d", at + 1);
        i += strlen(notebook->values[k].name);
    }
}

Status notebook_table(Cell *cell, const Notebook *notebook, bool pairs, bool *there, Error *error)
{
    static const char begin[] = "read(\"\"\"", end[] = "\"\"\")";
    const char *sql = strstr(text_string(&cell->source), begin);
    assert(sql);
    sql += strlen(begin);
    assert(strstr(sql, end));
    Text numbered = {0}, html = {0}, plain = {0};
    Binds binds = {0};
    Frame frame = {0};
    number_names(&numbered, &binds, sql, (size_t)(strstr(sql, end) - sql), notebook);
    Status status = frame_read(&frame, notebook->request->store, text_string(&numbered),
                               binds.values, (size_t)binds.n, error);
    if (!status && pairs) {
        comparison_pairs(&frame);
    }
    *there = !status && frame.n_rows > 0;
    if (*there) {
        sheet_html(&html, &frame);
        sheet_plain(&plain, &frame);
        notebook_mime(&cell->data, "text/html", html.bytes);
        notebook_mime(&cell->data, "text/plain", plain.bytes);
    }
    frame_release(&frame);
    text_release(&numbered);
    text_release(&html);
    text_release(&plain);
    return status;
}

/* Lines of 76 characters, as Jupyter writes them. */
static void add_base64(Text *out, const unsigned char *bytes, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t width = 0;
    for (size_t i = 0; i < n; i += 3) {
        unsigned b = i + 1 < n ? bytes[i + 1] : 0, c = i + 2 < n ? bytes[i + 2] : 0;
        unsigned word = (unsigned)bytes[i] << 16 | b << 8 | c;
        char four[4] = {digits[word >> 18], digits[word >> 12 & 63],
                        i + 1 < n ? digits[word >> 6 & 63] : '=',
                        i + 2 < n ? digits[word & 63] : '='};
        text_append(out, four, 4);
        width += 4;
        if (width == BASE64_LINE || i + 3 >= n) {
            text_add(out, "\n");
            width = 0;
        }
    }
}

/* As PNG keeps it in its first block; 0 for what is no PNG. */
static unsigned png_width(const unsigned char *bytes, size_t n)
{
    const unsigned char *at = bytes + 16;
    return n < 24 || memcmp(bytes, "\x89PNG", 4) != 0
               ? 0
               : (unsigned)at[0] << 24 | (unsigned)at[1] << 16 | (unsigned)at[2] << 8 | at[3];
}

static void add_picture(Cell *cell, const FigureKind *kind, const char *metric, int png_pixels,
                        const char *bytes, size_t n)
{
    const unsigned char *png = (const unsigned char *)bytes;
    unsigned width = png_width(png, n) * COLUMN_PIXELS / (unsigned)png_pixels;
    Text text = {0};
    add_base64(&text, png, n);
    notebook_mime(&cell->data, "image/png", text_string(&text));
    text_clear(&text);
    text_printf(&text, "<Figure: %s%s%s>", kind->title, metric ? ", " : "", metric ? metric : "");
    notebook_mime(&cell->data, "text/plain", text.bytes);
    text_printf(&cell->metadata, "\n      \"image/png\": {\n       \"width\": %u\n      }\n     ",
                width > WIDEST_PIXELS ? WIDEST_PIXELS : width);
    text_release(&text);
}

Status notebook_figure(Cell *cell, const Notebook *notebook, const char *kind, const char *metric,
                       bool *there, Error *error)
{
    const FigureKind *figure = figure_find(kind);
    assert(figure);
    FigureRequest request = {.store = notebook->request->store,
                             .experiment = figure->of_surface ? NULL : notebook->experiment,
                             .surface_id = figure->of_surface ? notebook->surface_id : NULL,
                             .metric = metric,
                             .folder = notebook->scratch,
                             .stem = "figure",
                             .formats = FIGURE_PNG,
                             .png_pixels = notebook->png_pixels,
                             .others = notebook->others,
                             .n_others = notebook->n_others,
                             .gnuplot = notebook->request->gnuplot};
    Text files = {0};
    char *bytes = NULL;
    size_t n = 0;
    Status status = figure_draw(figure, &request, there, &files, error);
    if (!status && *there) { /* the picture is the last file */
        while (files.n && files.bytes[files.n - 1] == '\n') {
            files.bytes[--files.n] = 0;
        }
        const char *line = strrchr(text_string(&files), '\n');
        status =
            file_read(&bytes, &n, line ? line + 1 : text_string(&files), PICTURE_MAX_BYTES, error);
    }
    if (!status && *there) {
        add_picture(cell, figure, metric, notebook->png_pixels, bytes, n);
    }
    free(bytes);
    text_release(&files);
    return status;
}
