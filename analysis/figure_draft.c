/* The parts of a figure's data file and script: strings that cannot run, numbers, colours, the
 * layout and the legend. */
#include "analysis/figure_draft.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/unicode.h"

static const unsigned char style[] = {
#include "analysis_figures_style_gp.inc"
    0};

static const double legend_row = 0.36, legend_font_em = 0.17; /* cm; 7 pt, mean of a character */

/* --- text --- */

/* The next character of text as bytes, or U+FFFD, or a space for a control character. */
static size_t next_character(const char **bytes, size_t *n, const char *text, size_t left)
{
    int32_t code;
    size_t length = utf8_decode(&code, text, left);
    *bytes = text;
    *n = length;
    if (length == 0) {
        *bytes = "\xef\xbf\xbd";
        *n = 3;
        return 1;
    }
    if (code < 0x20 || (code >= 0x7f && code < 0xa0)) {
        *bytes = " ";
        *n = 1;
    }
    return length;
}

void draft_escape(Text *out, const char *text, size_t max_chars)
{
    size_t n = strlen(text), n_chars = 0;
    for (size_t i = 0; i < n; n_chars++) {
        const char *bytes;
        size_t length;
        if (n_chars == max_chars) {
            text_add(out, "...");
            return;
        }
        i += next_character(&bytes, &length, text + i, n - i);
        if (length == 1 && strchr("{}^_@&~\\", *bytes)) {
            text_add(out, "\\");
        }
        text_append(out, bytes, length);
    }
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

void draft_escape_axis(Text *out, const char *text, size_t max_chars)
{
    Text cut = {0};
    size_t from = 0, n = strnlen(text, max_chars);
    for (size_t i = 1; i < n; i++) {
        size_t digits = text[i] == '_' ? strspn(text + i + 1, "0123456789") : 0;
        if (digits && is_letter(text[i - 1]) && (i < 2 || !is_letter(text[i - 2]))) {
            text_clear(&cut);
            text_append(&cut, text + from, i - from);
            draft_escape(out, text_string(&cut), SIZE_MAX);
            text_printf(out, "_{%.*s}", (int)digits, text + i + 1);
            from = i + 1 + digits;
            i = from;
        }
    }
    draft_escape(out, text + (from < strlen(text) ? from : strlen(text)),
                 max_chars > from ? max_chars - from : 0);
    text_release(&cut);
}

void draft_quote(Text *out, const char *text)
{
    text_add(out, "'");
    for (; *text; text++) {
        text_add(out, *text == '\'' ? "'" : "");
        text_append(out, *text == '\n' || *text == '\r' ? " " : text, 1);
    }
    text_add(out, "'");
}

void draft_about(FigureDraft *draft, const char *format, ...)
{
    Text line = {0};
    va_list arguments;
    va_start(arguments, format);
    text_vprintf(&line, format, arguments);
    va_end(arguments);
    text_add(&draft->about, "## "); /* one # would make it the name of a block */
    for (size_t i = 0; i < line.n;) {
        const char *bytes;
        size_t n;
        i += next_character(&bytes, &n, line.bytes + i, line.n - i);
        /* Backquotes and @ are expanded in comments too, a backslash joins lines. */
        bool order = n == 1 && strchr("`@\\", *bytes);
        text_append(&draft->about, order ? "?" : bytes, n);
    }
    text_add(&draft->about, "\n");
    text_release(&line);
}

/* --- variables --- */

void draft_number(FigureDraft *draft, const char *name, double value)
{
    text_printf(&draft->variables, isnan(value) ? "%s = NaN\n" : "%s = %.17g\n", name, value);
}

void draft_string(FigureDraft *draft, const char *name, const char *enhanced)
{
    text_printf(&draft->variables, "%s = ", name);
    draft_quote(&draft->variables, enhanced);
    text_add(&draft->variables, "\n");
}

void draft_strings(FigureDraft *draft, const char *name, char *const *enhanced, size_t n)
{
    text_printf(&draft->variables, "array %s[%zu] = [", name, n);
    for (size_t k = 0; k < n; k++) {
        text_add(&draft->variables, k ? ", " : "");
        draft_quote(&draft->variables, enhanced[k]);
    }
    text_add(&draft->variables, "]\n");
}

void draft_numbers(FigureDraft *draft, const char *name, const double *values, size_t n)
{
    text_printf(&draft->variables, "array %s[%zu] = [", name, n);
    for (size_t k = 0; k < n; k++) {
        text_printf(&draft->variables, "%s%.12g", k ? ", " : "", values[k]);
    }
    text_add(&draft->variables, "]\n");
}

void draft_colors(FigureDraft *draft, const char *name, const uint32_t *colors, size_t n)
{
    text_printf(&draft->variables, "array %s[%zu] = [", name, n);
    for (size_t k = 0; k < n; k++) {
        text_printf(&draft->variables, "%s0x%06x", k ? ", " : "", (unsigned)colors[k]);
    }
    text_add(&draft->variables, "]\n");
}

/* --- data --- */

void draft_block(FigureDraft *draft, const char *name, const char *columns)
{
    text_printf(&draft->data, "%s# %s\n# %s\n", draft->data.n ? "\n\n" : "", name, columns);
}

void draft_value(FigureDraft *draft, double value)
{
    text_printf(&draft->data, isnan(value) ? " NaN" : " %.17g", value);
}

/* --- layout --- */

void draft_layout(FigureDraft *draft, double width, double left, double right, double top,
                  double plot_height, double bottom)
{
    double foot = bottom + draft->legend_height;
    draft->width = width;
    draft->height = top + plot_height + foot;
    text_printf(&draft->variables, "width = %.4g\nheight = %.4g # cm\n", width, draft->height);
    text_printf(&draft->variables,
                "left = %.6f; right = %.6f; bottom = %.6f; top = %.6f # edges of the plot, parts "
                "of the picture\n",
                left / width, 1 - right / width, foot / draft->height, 1 - top / draft->height);
}

static double entry_width(const LegendEntry *entry)
{
    size_t n = 0;
    for (const char *c = entry->title; *c; c++) {
        n += ((unsigned char)*c & 0xc0) != 0x80 && !strchr("\\{}", *c);
    }
    return 0.85 + legend_font_em * (double)n + 0.25;
}

static void legend_entry(FigureDraft *draft, const LegendEntry *entry, double x, double y)
{
    Text *out = &draft->legend;
    if (entry->patch) {
        text_printf(out,
                    "set object rectangle from screen X(%.3f), Y(%.3f) to screen X(%.3f), Y(%.3f) "
                    "fc rgb '#%06x' fs solid %s border lc rgb '#%06x' lw 0.5\n",
                    x + 0.1, y - 0.1, x + 0.6, y + 0.1, (unsigned)entry->color,
                    entry->light ? "0.3" : "1", (unsigned)entry->color);
    }
    if (entry->line_width > 0) {
        text_printf(out,
                    "set arrow from screen X(%.3f), Y(%.3f) to screen X(%.3f), Y(%.3f) nohead lc "
                    "rgb '#%06x' lw %g dt %d\n",
                    x, y, x + 0.7, y, (unsigned)entry->color, entry->line_width,
                    entry->dash ? entry->dash : 1);
    }
    if (entry->point && entry->halo) {
        text_printf(out,
                    "set label '' at screen X(%.3f), Y(%.3f) point pt %d ps %g lc rgb 'white'\n",
                    x + 0.35, y, entry->point + 1, entry->point_size);
    }
    if (entry->point) {
        text_printf(out,
                    "set label '' at screen X(%.3f), Y(%.3f) point pt %d ps %g lw 1 lc rgb "
                    "'#%06x'\n",
                    x + 0.35, y, entry->point, entry->point_size, (unsigned)entry->color);
    }
    if (entry->star) {
        text_add(out, "set object polygon");
        for (int corner = 0; corner <= 10; corner++) {
            double at[2];
            figure_star(at, corner);
            text_printf(out, " %s screen X(%.3f), Y(%.3f)", corner ? "to" : "from",
                        x + 0.35 + FIGURE_STAR_CM * at[0], y + FIGURE_STAR_CM * at[1]);
        }
        text_add(out, " fc rgb 'white' fs solid border lc rgb 'black' lw 1\n");
    }
    text_add(out, "set label ");
    draft_quote(out, entry->title);
    text_printf(out, " at screen X(%.3f), Y(%.3f) left font ',7'\n", x + 0.85, y);
}

/* Left edges of so many columns and the right edge of the last: each as wide as its widest entry.
 */
static void column_edges(double *edges, const LegendEntry *entries, size_t n, size_t columns)
{
    edges[0] = 0;
    for (size_t c = 0; c < columns; c++) {
        double widest = 0;
        for (size_t k = c; k < n; k += columns) {
            widest = fmax(widest, entry_width(&entries[k]));
        }
        edges[c + 1] = edges[c] + widest;
    }
}

void draft_legend(FigureDraft *draft, double width, const LegendEntry *entries, size_t n)
{
    enum { COLUMNS_MAX = 8 };
    double edges[COLUMNS_MAX + 1] = {0};
    if (n == 0) {
        return;
    }
    size_t columns = n < COLUMNS_MAX ? n : COLUMNS_MAX, rows;
    for (; columns > 1; columns--) {
        column_edges(edges, entries, n, columns);
        if (edges[columns] <= width - 0.3) {
            break;
        }
    }
    rows = (n + columns - 1) / columns;
    columns = (n + rows - 1) / rows; /* rows of equal length */
    column_edges(edges, entries, n, columns);
    draft->legend_height = 0.12 + legend_row * (double)rows;
    double left = fmax(0.1, (width - edges[columns]) / 2);
    for (size_t k = 0; k < n; k++) {
        size_t row = k / columns;
        double y = 0.12 + legend_row * ((double)(rows - row) - 0.5);
        legend_entry(draft, &entries[k], left + edges[k % columns], y);
    }
}

/* --- colours --- */

static const uint32_t viridis[] = {0x440154, 0x482475, 0x414487, 0x355f8d, 0x2a788e, 0x21918c,
                                   0x22a884, 0x44bf70, 0x7ad151, 0xbddf26, 0xfde725};

uint32_t figure_sequential(double t)
{
    enum { LAST = sizeof viridis / sizeof viridis[0] - 1 };
    double at = fmin(fmax(t, 0), 1) * LAST;
    int k = at < LAST ? (int)at : LAST - 1;
    uint32_t color = 0;
    for (int shift = 16; shift >= 0; shift -= 8) {
        double a = viridis[k] >> shift & 0xff, b = viridis[k + 1] >> shift & 0xff;
        color |= (uint32_t)lround(a + (b - a) * (at - k)) << shift;
    }
    return color;
}

uint32_t figure_categorical(size_t k)
{
    static const uint32_t colors[] = {0x0072b2, 0xd55e00, 0x009e73, 0xcc79a7,
                                      0x000000, 0xe69f00, 0x56b4e9};
    return colors[k % (sizeof colors / sizeof colors[0])];
}

uint32_t figure_color(size_t k, size_t n)
{
    return n <= 7 ? figure_categorical(k) : figure_sequential(0.92 * (double)k / (double)(n - 1));
}

int figure_point(size_t k)
{
    static const int points[] = {7, 5, 9, 13, 11, 15, 6, 4, 8, 12};
    return points[k % (sizeof points / sizeof points[0])];
}

int figure_dash(size_t k)
{
    static const int dashes[] = {1, 2, 4, 5, 3};
    return dashes[k % (sizeof dashes / sizeof dashes[0])];
}

void figure_star(double out[2], int corner)
{
    double angle = (0.5 + corner / 5.0) * acos(-1), radius = corner % 2 ? 0.42 : 1;
    out[0] = radius * cos(angle);
    out[1] = radius * sin(angle);
}

/* --- ranges --- */

double figure_nice_step(double range, int n)
{
    double raw = range / n, power = pow(10, floor(log10(raw))), part = raw / power;
    return power * (part < 1.5 ? 1 : part < 3.5 ? 2 : part < 7.5 ? 5 : 10);
}

void figure_widen(double *low, double *high)
{
    if (!(*low <= *high)) {
        *low = 0;
        *high = 1;
    }
    double margin = (*high - *low) / 20;
    if (!(margin > 1e-12 * fmax(fabs(*low), fabs(*high)))) {
        margin = *low != 0 ? fabs(*low) / 20 : 0.5;
    }
    *low -= margin;
    *high += margin;
}

void draft_ticks(FigureDraft *draft, const char *name, double low, double high, double step,
                 int *power)
{
    Text ticks = {0};
    int exponent = (int)floor(log10(fmax(fabs(low), fabs(high))) + 1e-9);
    *power = exponent < -3 || exponent > 4 ? exponent : 0;
    double first = ceil(low / step - 1e-9);
    for (int n = 0; n < 40 && (first + n) * step <= high + 1e-9 * step; n++) {
        double k = first + n;
        double at = fabs(k) < 0.5 ? 0 : k * step;
        text_printf(&ticks, "%s'%.6g' %.12g", ticks.n ? ", " : "", at / pow(10, *power), at);
    }
    text_printf(&draft->variables, "%s = \"%s\"\n", name, text_string(&ticks));
    text_release(&ticks);
}

void draft_script(const FigureDraft *draft, Text *script)
{
    unsigned formats = draft->request->formats ? draft->request->formats : FIGURE_PNG;
    text_append(script, draft->about.bytes, draft->about.n);
    text_printf(script,
                "## gnuplot %s.gp in this folder draws it again.\n\nreset session\n"
                "name = '%s'\ndata = name.'.dat'\nformats = '%s%s%s'\n"
                "png_pixels = %d # of a column of 8.5 cm\n",
                draft->name, draft->name, formats & FIGURE_PDF ? "pdf " : "",
                formats & FIGURE_SVG ? "svg " : "", formats & FIGURE_PNG ? "png" : "",
                draft->request->png_pixels ? draft->request->png_pixels : 1200);
    text_append(script, draft->variables.bytes, draft->variables.n);
    text_add(script, "\n");
    text_add(script, (const char *)style);
    text_printf(script, "$legend << EOD\nunset key\n%sEOD\n\n", text_string(&draft->legend));
    text_add(script, (const char *)draft->body);
}
