/* From a request to files: the kind fills a draft, data and script are written, gnuplot draws in a
 * folder of its own, and each picture is then put in place whole. */
#include "analysis/figure.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/figure_draft.h"
#include "analysis/figure_gnuplot.h"
#include "core/file.h"
#include "core/sha256.h"

enum { PICTURE_MAX = 256 << 20 };

const FigureKind figure_kinds[] = {
    {"lr-accuracy", "Learning rate against accuracy", false},
    {"learning-curves", "Learning curves", false},
    {"parameters-accuracy", "Trained parameters against accuracy", false},
    {"rewards", "Rewards at the first and the last steps", false},
    {"lengths", "Completion lengths at the first and the last steps", false},
    {"comparison", "Best runs of several experiments", false},
    {"surface", "Surface with contours", true},
    {"surface-3d", "Surface in three dimensions", true},
    {"slices", "Slices through the minimum", true},
};
const int n_figure_kinds = sizeof figure_kinds / sizeof figure_kinds[0];

static FigureBuild *const builders[] = {
    figure_build_lr_accuracy, figure_build_learning_curves, figure_build_parameters_accuracy,
    figure_build_rewards,     figure_build_lengths,         figure_build_comparison,
    figure_build_surface,     figure_build_surface_3d,      figure_build_slices,
};
_Static_assert(sizeof builders / sizeof builders[0] == sizeof figure_kinds / sizeof figure_kinds[0],
               "a builder for each kind");

const FigureKind *figure_find(const char *name)
{
    for (int k = 0; k < n_figure_kinds; k++) {
        if (strcmp(figure_kinds[k].name, name) == 0) {
            return &figure_kinds[k];
        }
    }
    return NULL;
}

/* A part of a file name: letters, digits, '.', '_' and '-', no '.' in front. Where
 * it has to be unique, one that was changed gets the start of its hash. */
static void add_to_name(Text *name, const char *part, bool unique)
{
    enum { PART_MAX = 48 };
    size_t n = strlen(part), n_kept = n < PART_MAX ? n : PART_MAX;
    bool changed = n > PART_MAX || n == 0;
    for (size_t i = 0; i < n_kept; i++) {
        char c = part[i];
        bool fine = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                    c == '_' || c == '-' || (c == '.' && i > 0);
        changed |= !fine;
        text_append(name, fine ? &c : "_", 1);
    }
    if (changed && unique) {
        char hex[SHA256_HEX_SIZE];
        sha256_bytes(hex, part, n);
        text_printf(name, "-%.8s", hex);
    }
}

static void add_words(Text *name, const char *words)
{
    if (*words) {
        text_add(name, "-");
        text_add(name, words);
    }
}

/* EXPERIMENT-KIND[-METRIC]; of a surface EXPERIMENT-ID-METRIC, then "3d", "slices". */
static Status name_draft(FigureDraft *draft, Error *error)
{
    static const char sql[] = "SELECT coalesce(experiment, 'surface') AS experiment,"
                              " coalesce(?2, metrics ->> 0) AS metric FROM surface"
                              " WHERE surface_id = ?1";
    const FigureRequest *request = draft->request;
    const char *kind = draft->kind->name;
    Frame surface = {0};
    Text name = {0};
    Status status = STATUS_OK;
    if (request->stem) {
        add_to_name(&name, request->stem, true);
    } else if (draft->kind->of_surface) {
        const char *binds[] = {request->surface_id, request->metric};
        status = frame_read(&surface, request->store, sql, binds, 2, error);
        const char *experiment = frame_text(&surface, "experiment", 0);
        const char *metric = frame_text(&surface, "metric", 0);
        add_to_name(&name, experiment ? experiment : "surface", false);
        char id[9];
        snprintf(id, sizeof id, "%.8s", request->surface_id);
        text_add(&name, "-");
        add_to_name(&name, id, false);
        text_add(&name, "-");
        add_to_name(&name, metric ? metric : "-", true);
        add_words(&name, strncmp(kind, "surface", 7) ? kind : kind[7] == '-' ? kind + 8 : "");
    } else {
        add_to_name(&name, request->experiment, true);
        add_words(&name, kind);
        if (request->metric) {
            text_add(&name, "-");
            add_to_name(&name, request->metric, true);
        }
    }
    snprintf(draft->name, sizeof draft->name, "%s", text_string(&name));
    frame_release(&surface);
    text_release(&name);
    return status;
}

/* cairo writes the time into a PDF: the same data gives the same bytes. */
static void clear_pdf_date(char *bytes, size_t n)
{
    static const char key[] = "/CreationDate (D:", date[] = "20000101000000";
    for (size_t i = 0; i + sizeof key + sizeof date < n; i++) {
        if (memcmp(bytes + i, key, sizeof key - 1) == 0) {
            memcpy(bytes + i + sizeof key - 1, date, sizeof date - 1);
        }
    }
}

static Status put_picture(const FigureDraft *draft, const char *from_folder, const char *ending,
                          Text *files, Error *error)
{
    char name[FIGURE_NAME_MAX + 8], from[FILE_PATH_MAX], to[FILE_PATH_MAX];
    char *bytes = NULL;
    size_t n = 0;
    snprintf(name, sizeof name, "%s.%s", draft->name, ending);
    Status status = path_join(from, from_folder, name, error);
    status = status ? status : path_join(to, draft->request->folder, name, error);
    status = status ? status : file_read(&bytes, &n, from, PICTURE_MAX, error);
    if (status || n == 0) {
        free(bytes);
        return error_set(error, STATUS_FAILED, "gnuplot drew no %s", name);
    }
    if (strcmp(ending, "pdf") == 0) {
        clear_pdf_date(bytes, n);
    }
    status = file_write(to, bytes, n, error);
    free(bytes);
    if (!status) {
        text_printf(files, "%s\n", to);
    }
    return status;
}

static Status write_text(const FigureDraft *draft, const char *folder, const char *ending,
                         const Text *text, Text *files, Error *error)
{
    char name[FIGURE_NAME_MAX + 8], path[FILE_PATH_MAX];
    snprintf(name, sizeof name, "%s.%s", draft->name, ending);
    Status status = path_join(path, folder, name, error);
    status = status ? status : file_write(path, text->bytes, text->n, error);
    if (!status && files) {
        text_printf(files, "%s\n", path);
    }
    return status;
}

static Status render(const FigureDraft *draft, const Text *data, const Text *script, Text *files,
                     Error *error)
{
    const FigureRequest *request = draft->request;
    unsigned formats = request->formats ? request->formats : FIGURE_PNG;
    char workplace[FILE_PATH_MAX], script_name[FIGURE_NAME_MAX + 8];
    FileWriter work;
    snprintf(script_name, sizeof script_name, "%s.gp", draft->name);
    Status status = path_join(workplace, request->folder, draft->name, error);
    status = status ? status : directory_writer_open(&work, workplace, error);
    if (status) {
        return status;
    }
    status = write_text(draft, work.temporary, "dat", data, NULL, error);
    status = status ? status : write_text(draft, work.temporary, "gp", script, NULL, error);
    status = status ? status
                    : gnuplot_run(request->gnuplot ? request->gnuplot : "gnuplot", work.temporary,
                                  script_name, error);
    static const struct {
        FigureFormat format;
        const char *ending;
    } pictures[] = {{FIGURE_PDF, "pdf"}, {FIGURE_SVG, "svg"}, {FIGURE_PNG, "png"}};
    for (size_t k = 0; k < sizeof pictures / sizeof pictures[0] && !status; k++) {
        if (formats & pictures[k].format) {
            status = put_picture(draft, work.temporary, pictures[k].ending, files, error);
        }
    }
    directory_writer_cancel(&work);
    return status ? error_context(error, status,
                                  "figure \"%s\" (its data and script are in \"%.200s\")",
                                  draft->name, request->folder)
                  : STATUS_OK;
}

Status figure_draw(const FigureKind *kind, const FigureRequest *request, bool *drawn, Text *files,
                   Error *error)
{
    FigureDraft draft = {.request = request, .kind = kind};
    Text data = {0}, script = {0};
    *drawn = false;
    Status status = name_draft(&draft, error);
    status = status ? status : builders[kind - figure_kinds](&draft, drawn, error);
    if (status || !*drawn) {
        goto done;
    }
    text_append(&data, text_string(&draft.about), draft.about.n);
    text_append(&data, text_string(&draft.data), draft.data.n);
    draft_script(&draft, &script);
    status = directory_make(request->folder, error);
    status = status ? status : write_text(&draft, request->folder, "dat", &data, files, error);
    status = status ? status : write_text(&draft, request->folder, "gp", &script, files, error);
    status = status ? status : render(&draft, &data, &script, files, error);
done:
    text_release(&data);
    text_release(&script);
    text_release(&draft.about);
    text_release(&draft.data);
    text_release(&draft.variables);
    text_release(&draft.legend);
    return status;
}
