/* The answer of a read-only statement as columns in memory: what figures, notebooks, exports and
 * reports are made of. */
#pragma once
#include "core/status.h"
#include "results/store.h"

typedef struct {
    char *name;
    bool numeric;    /* every value is NULL, an integer or a real */
    bool integer;    /* numeric, and every value is NULL or an integer */
    double *numbers; /* (n_rows) NaN for NULL; NULL unless numeric */
    char **texts; /* (n_rows) NULL for NULL, BLOBs as hex, numbers as %.17g; NULL where numeric */
} FrameColumn;

typedef struct {
    FrameColumn *columns;
    size_t n_columns, n_rows;
} Frame;

/* Like query_run: one statement that only reads, binds as text to ?1.. (NULL binds NULL). Errors:
 * STATUS_USAGE for other statements, STATUS_STOPPED. frame: zeroed; released also after an error.
 */
Status frame_read(Frame *frame, Store *store, const char *sql, const char *const *binds,
                  size_t n_binds, Error *error);
void frame_release(Frame *frame);
/* The first of that name; NULL when there is none. */
const FrameColumn *frame_column(const Frame *frame, const char *name);
/* NaN / NULL when the column is absent or of the other kind. */
double frame_number(const Frame *frame, const char *name, size_t row);
const char *frame_text(const Frame *frame, const char *name, size_t row);
