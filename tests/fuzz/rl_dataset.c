/* Any bytes as rows: JSON Lines, or an array where they begin with '['. Refused, or rows whose
 * texts are whole. */
#include <stdlib.h>
#include <string.h>

#include "rl/dataset.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/memory.h"

static void read_rows(const char *path, const char *question, const char *answer)
{
    Dataset data;
    int line, earlier;
    Status status = dataset_open(&data, path, question, answer, NULL);
    if (status != STATUS_OK) {
        if (status != STATUS_REFUSED) {
            abort();
        }
        return;
    }
    for (int i = 0; i < data.n_rows; i++) {
        const DataRow *row = &data.rows[i];
        if (strlen(row->question) != row->n_question || strlen(row->answer) != row->n_answer ||
            row->line < 1) {
            abort();
        }
    }
    dataset_twins(&data, &line, &earlier);
    dataset_wordy(&data, &line);
    dataset_close(&data);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    char path[96];
    if (n && bytes[0] == '[') {
        memory_folder_file(path, "rows.json", bytes, n);
    } else {
        memory_file(path, bytes, n);
    }
    read_rows(path, "question", "answer");
    read_rows(path, "{question}\n{input}", "#### {answer}");
    int n_rows;
    dataset_verify(path, &n_rows, NULL, NULL);
    return 0;
}
