/* Questions to results.db, answered as tables in any format. */
#pragma once
#include "core/status.h"
#include "core/text.h"
#include "results/store.h"

typedef enum { FORMAT_TABLE, FORMAT_JSON, FORMAT_JSONL, FORMAT_CSV, FORMAT_MD } OutputFormat;
bool output_format_find(OutputFormat *format, const char *name);

/* Run one read-only statement (an authorizer refuses everything else: STATUS_USAGE) and append the formatted result
 * to out. binds: n_binds strings bound to ?1.. as text; NULL binds NULL. Numbers in JSON and CSV as %.17g. */
Status query_run(Store *store, const char *sql, const char *const *binds, size_t n_binds, OutputFormat format,
                 Text *out, Error *error);
