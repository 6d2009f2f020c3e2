/* JSON Lines, or one JSON array of rows in a file named *.json, with a question and an answer in
 * named fields, read strictly: every error names the line. */
#pragma once
#include <stddef.h>

#include "core/sha256.h"
#include "core/status.h"

typedef struct {
    const char *question, *answer; /* UTF-8, NUL-terminated, no NUL inside */
    size_t n_question, n_answer;
    int line; /* 1-based line of the file */
} DataRow;

typedef struct {
    char *path;
    DataRow *rows; /* (n_rows) in the file's order */
    int n_rows;
    char sha256[SHA256_HEX_SIZE]; /* of the whole file */
    char *strings;                /* backing store of the rows */
} Dataset;

/* question, answer: names of the two fields (strings; may be empty), or texts of fields such as
 * "{instruction}\n{input}", from which lines are left out whose fields are all empty; in such a
 * text a field may also be a number ({target}; 145.0 is "145").
 * Other fields are ignored, but an "id" must be unique. A byte-order mark at the start and blank
 * lines are skipped. Errors: STATUS_REFUSED naming path, line and rule; also for a file without
 * rows, and for a row with neither question nor answer. */
Status dataset_open(Dataset *dataset, const char *path, const char *question, const char *answer,
                    Error *error);
void dataset_close(Dataset *dataset);

/* Rows equal to an earlier one in question and answer: each counts as a row of its own. line,
 * earlier: of the first of them; untouched where there is none. */
int dataset_twins(const Dataset *dataset, int *line, int *earlier);
/* Rows whose answer has no digit: extractors that read numbers never call a completion right. line:
 * of the first. */
int dataset_wordy(const Dataset *dataset, int *line);

/* What `verify --kind dataset` asks: dataset_open with the default fields, that every question says
 * something, and that every answer ends in GSM8K's marker with a number ("#### 42"), without which
 * no answer could ever earn a reward. sha256: of the bytes that were parsed. n_rows and sha256 may
 * be NULL. */
Status dataset_verify(const char *path, int *n_rows, char sha256[SHA256_HEX_SIZE], Error *error);
