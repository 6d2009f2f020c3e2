/* Panels beside and below each other. */
#include "analysis/figure_panels.h"

#include <math.h>
#include <stdlib.h>

static size_t n_columns(const Panels *panels)
{
    return panels->n > 2 ? 2 : 1;
}

double panels_width(const Panels *panels)
{
    return 8.5 * (double)n_columns(panels);
}

void panels_add(FigureDraft *draft, const Panels *panels)
{
    size_t n = panels->n, columns = n_columns(panels), rows = (n + columns - 1) / columns;
    const double height = n > 1 ? 3.8 : 4.6, step = height + 1.35;
    char *titles[PANELS_MAX], *y_labels[PANELS_MAX];
    double numbers[8][PANELS_MAX];
    for (size_t p = 0; p < n; p++) {
        const Panel *panel = &panels->panels[p];
        titles[p] = panel->title;
        y_labels[p] = panel->y_label;
        numbers[0][p] = panel->x_low;
        numbers[1][p] = panel->x_high;
        numbers[2][p] = panel->y_low;
        numbers[3][p] = panel->y_high;
        double few = figure_nice_step(panel->x_high - panel->x_low, 5);
        numbers[4][p] = panel->x_step > few / 1.5 ? panel->x_step : few;
        numbers[5][p] = figure_nice_step(panel->y_high - panel->y_low, 5);
        numbers[6][p] = (double)panel->from;
        numbers[7][p] = (double)panel->to;
    }
    static const char *const names[] = {"x_lows",  "x_highs", "y_lows", "y_highs",
                                        "x_steps", "y_steps", "firsts", "lasts"};
    draft_number(draft, "n_panels", (double)n);
    draft_number(draft, "n_columns", (double)columns);
    draft_number(draft, "panel_left", 1.5);
    draft_number(draft, "panel_height", height);
    draft_number(draft, "panel_step", step);
    draft_strings(draft, "titles", titles, n);
    draft_strings(draft, "y_labels", y_labels, n);
    for (int k = 0; k < 8; k++) {
        draft_numbers(draft, names[k], numbers[k], n);
    }
    draft_layout(draft, panels_width(panels), 1.5, 0.4, 0.2, step * (double)(rows - 1) + height,
                 1.1);
}

void panels_release(Panels *panels)
{
    for (size_t p = 0; p < panels->n; p++) {
        free(panels->panels[p].title);
        free(panels->panels[p].y_label);
    }
}
