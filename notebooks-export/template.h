/* Notebooks as text: a file of Python in cells, read by people and by this program.
 *
 *   # === NAME             a section; its name goes into the ids of its cells
 *   # %% [markdown]        each line behind "# "
 *   # %% common            the cells of common.py
 *   # %% code              a cell without output
 *   # %% table [PAIRS]     its output is the answer of the SQL between read(""" and """
 *   # %% figure KIND       its output is the figure of that name (analysis/figure.h)
 *   # %% figure KIND each  the same for each metric of a surface: {{metric}}
 *
 * {{name}} stands for a value: a Python literal in code, text in Markdown. */
#pragma once
#include <stdbool.h>

#include "core/text.h"

typedef enum { CELL_MARKDOWN, CELL_COMMON, CELL_CODE, CELL_TABLE, CELL_FIGURE } CellKind;

enum { TEMPLATE_CELLS = 64, TEMPLATE_NAME = 32 };
typedef struct {
    CellKind kind;
    char section[TEMPLATE_NAME], argument[TEMPLATE_NAME];
    bool each;
    Text source; /* without the last newline */
} TemplateCell;

typedef struct {
    TemplateCell cells[TEMPLATE_CELLS];
    int n_cells;
} Template;

/* text: one of ours; what is wrong with it is a bug (assert). template: zeroed. */
void template_parse(Template *template, const char *text);
void template_release(Template *template);

typedef struct {
    const char *name;
    const char *text;    /* for Markdown */
    const char *literal; /* for code; NULL: text as a string, or None */
} TemplateValue;

/* source with its {{names}} replaced, appended to out. */
void template_fill(Text *out, const char *source, bool markdown, const TemplateValue *values,
                   int n_values);

/* "a \"string\"" as Python and JSON read it; NULL: None. */
void template_literal(Text *out, const char *text);
/* Text that shows as it is in Markdown: its marks escaped, line breaks and control characters
 * blanks. */
void template_markdown(Text *out, const char *text);
