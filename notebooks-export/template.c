/* Cells out of text, values into cells. */
#include "notebooks-export/template.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "core/unicode.h"

static bool starts_with(const char *line, const char *start)
{
    return strncmp(line, start, strlen(start)) == 0;
}

/* "figure surface each" behind "# %% ". */
static void read_header(TemplateCell *cell, const char *line, size_t n)
{
    static const char *const kinds[] = {"[markdown]", "common", "code", "table", "figure"};
    char header[128], kind[TEMPLATE_NAME] = "", each[TEMPLATE_NAME] = "";
    assert(n < sizeof header);
    snprintf(header, sizeof header, "%.*s", (int)n, line);
    int n_words = sscanf(header, "%31s %31s %31s", kind, cell->argument, each);
    assert(n_words >= 1);
    int k = 0;
    while (strcmp(kinds[k], kind) != 0) {
        k++;
        assert(k < (int)(sizeof kinds / sizeof *kinds));
    }
    cell->kind = (CellKind)k;
    cell->each = strcmp(each, "each") == 0;
}

void template_parse(Template *template, const char *text)
{
    char section[TEMPLATE_NAME] = "";
    TemplateCell *cell = NULL;
    while (*text) {
        size_t n = strcspn(text, "\n");
        if (starts_with(text, "# === ")) {
            snprintf(section, sizeof section, "%.*s", (int)n - 6, text + 6);
            cell = NULL;
        } else if (starts_with(text, "# %% ")) {
            assert(template->n_cells < TEMPLATE_CELLS);
            cell = &template->cells[template->n_cells++];
            read_header(cell, text + 5, n - 5);
            strcpy(cell->section, section);
        } else if (cell) {
            size_t skip = cell->kind == CELL_MARKDOWN ? (n > 1 ? 2 : n) : 0;
            text_append(&cell->source, text + skip, n - skip + 1); /* with its newline */
        }
        text += n + (text[n] == '\n');
    }
    for (int i = 0; i < template->n_cells; i++) { /* blank lines at the end */
        Text *source = &template->cells[i].source;
        while (source->n && source->bytes[source->n - 1] == '\n') {
            source->bytes[--source->n] = 0;
        }
    }
}

void template_release(Template *template)
{
    for (int i = 0; i < template->n_cells; i++) {
        text_release(&template->cells[i].source);
    }
    *template = (Template){0};
}

void template_literal(Text *out, const char *text)
{
    if (text) {
        text_json_string(out, text, strlen(text));
    } else {
        text_add(out, "None");
    }
}

void template_markdown(Text *out, const char *text)
{
    for (size_t n = strlen(text), i = 0; i < n;) {
        int32_t code;
        size_t length = utf8_decode(&code, text + i, n - i);
        if (length == 0) {
            text_add(out, "\xef\xbf\xbd");
            i++;
            continue;
        }
        if (code < 0x20 || (code >= 0x7f && code < 0xa0) || code == 0x2028 || code == 0x2029) {
            text_add(out, " ");
        } else {
            if (code < 0x80 && strchr("\\`*_{}[]<>&$|~#", (int)code)) {
                text_add(out, "\\");
            }
            text_append(out, text + i, length);
        }
        i += length;
    }
}

void template_fill(Text *out, const char *source, bool markdown, const TemplateValue *values,
                   int n_values)
{
    for (const char *open; (open = strstr(source, "{{")) != NULL;) {
        const char *close = strstr(open, "}}");
        int k = 0;
        while (k < n_values && (strlen(values[k].name) != (size_t)(close - open) - 2 ||
                                strncmp(values[k].name, open + 2, strlen(values[k].name)) != 0)) {
            k++;
        }
        assert(k < n_values);
        text_append(out, source, (size_t)(open - source));
        if (markdown) {
            template_markdown(out, values[k].text ? values[k].text : "");
        } else if (values[k].literal) {
            text_add(out, values[k].literal);
        } else {
            template_literal(out, values[k].text);
        }
        source = close + 2;
    }
    text_add(out, source);
}
