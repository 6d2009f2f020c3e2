/* Questions to results.db, answered as tables in any format. */
#pragma once
#include "core/status.h"
#include "core/text.h"
#include "results/store.h"

typedef enum { FORMAT_TABLE, FORMAT_JSON, FORMAT_JSONL, FORMAT_CSV, FORMAT_MD } OutputFormat;
bool output_format_find(OutputFormat *format, const char *name);

/* Run one read-only statement (an authorizer refuses everything else: STATUS_USAGE) and append the
 * formatted result to out. binds: n_binds strings bound to ?1.. as text; NULL binds NULL.
 * store_interrupt ends it: STATUS_STOPPED. table  columns padded by the width of their characters,
 * numbers to 6 digits, cells cut at 72, control characters made visible, BLOBs as their size; NULL
 * is empty md     the same as a Markdown table, uncut json   a list of objects; jsonl: an object a
 * line. Numbers as %.17g, BLOBs as hex, NULL as null csv    RFC 4180 (CRLF, quotes doubled).
 * Numbers as %.17g, BLOBs as hex, NULL empty, an empty string as "", broken UTF-8 as U+FFFD. A
 * column name that comes again gets "_2", "_3". On an error out is as it was. */
Status query_run(Store *store, const char *sql, const char *const *binds, size_t n_binds,
                 OutputFormat format, Text *out, Error *error);
