/* nbformat 4.5 as nbformat.write lays it out: keys in order, indented by one, texts as lists of
 * lines. */
#include <string.h>

#include "core/sha256.h"
#include "notebooks-export/notebook_parts.h"

enum { ID_CHARACTERS = 12 };

/* "[\n <indent> "line\n",\n ... ]" */
static void add_lines(Text *out, const char *text, int indent)
{
    text_add(out, "[");
    for (const char *line = text; *line;) {
        size_t n = strcspn(line, "\n");
        n += line[n] == '\n';
        text_printf(out, "%s\n%*s", line == text ? "" : ",", indent + 1, "");
        text_json_string(out, line, n);
        line += n;
    }
    text_printf(out, *text ? "\n%*s]" : "]", indent, "");
}

/* Unique by numbering the same cell in the same section. */
static void add_id(Text *out, const Notebook *notebook, int at)
{
    const Cell *cell = &notebook->cells[at];
    unsigned again = 0;
    char hex[SHA256_HEX_SIZE];
    for (int i = 0; i < at; i++) {
        const Cell *other = &notebook->cells[i];
        again += !other->dropped && strcmp(other->section, cell->section) == 0 &&
                 strcmp(text_string(&other->source), text_string(&cell->source)) == 0;
    }
    Sha256 *state = sha256_new();
    sha256_update(state, notebook->subject, strlen(notebook->subject) + 1);
    sha256_update(state, cell->section, strlen(cell->section) + 1);
    sha256_update(state, text_string(&cell->source), cell->source.n + 1);
    for (; again; again--) {
        sha256_update(state, "+", 1);
    }
    sha256_finish(state, hex);
    text_printf(out, "   \"id\": \"%.*s\",\n", ID_CHARACTERS, hex);
}

static void add_cell(Text *out, const Notebook *notebook, int at)
{
    const Cell *cell = &notebook->cells[at];
    bool markdown = cell->kind == CELL_MARKDOWN;
    text_add(out, "  {\n");
    text_printf(out, "   \"cell_type\": \"%s\",\n", markdown ? "markdown" : "code");
    text_add(out, markdown ? "" : "   \"execution_count\": null,\n");
    add_id(out, notebook, at);
    text_add(out, "   \"metadata\": {},\n");
    if (!markdown && cell->data.n) {
        text_printf(out,
                    "   \"outputs\": [\n    {\n     \"data\": {%s\n     },\n     \"metadata\": "
                    "{%s},\n     \"output_type\": \"display_data\"\n    }\n   ],\n",
                    cell->data.bytes, text_string(&cell->metadata));
    } else if (!markdown) {
        text_add(out, "   \"outputs\": [],\n");
    }
    text_add(out, "   \"source\": ");
    add_lines(out, text_string(&cell->source), 3);
    text_add(out, "\n  }");
}

void notebook_json(Text *out, const Notebook *notebook)
{
    bool first = true;
    text_add(out, "{\n \"cells\": [\n");
    for (int i = 0; i < notebook->n_cells; i++) {
        if (!notebook->cells[i].dropped) {
            text_add(out, first ? "" : ",\n");
            add_cell(out, notebook, i);
            first = false;
        }
    }
    text_add(out, "\n ],\n \"metadata\": {\n"
                  "  \"kernelspec\": {\n   \"display_name\": \"Python 3\",\n"
                  "   \"language\": \"python\",\n   \"name\": \"python3\"\n  },\n"
                  "  \"language_info\": {\n   \"codemirror_mode\": {\n    \"name\": \"ipython\",\n"
                  "    \"version\": 3\n   },\n   \"file_extension\": \".py\",\n"
                  "   \"mimetype\": \"text/x-python\",\n   \"name\": \"python\",\n"
                  "   \"nbconvert_exporter\": \"python\",\n   \"pygments_lexer\": \"ipython3\"\n"
                  "  }\n },\n \"nbformat\": 4,\n \"nbformat_minor\": 5\n}\n");
}

void notebook_mime(Text *out, const char *type, const char *text)
{
    text_printf(out, "%s\n      \"%s\": ", out->n ? "," : "", type);
    if (strncmp(type, "text/", 5) == 0) {
        add_lines(out, text, 6);
    } else {
        text_json_string(out, text, strlen(text));
    }
}
