/* Any bytes as a completion, after a NUL as the reference answer: every extractor reads and judges,
 * and what they read is JSON. */
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "rl/extract.h"
#include "rl/latex.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/memory.h"

/* A NUL after it, as the callers have it. */
static char *copy_of(const uint8_t *bytes, size_t n)
{
    char *copy = malloc(n + 1);
    if (!copy) {
        abort();
    }
    memcpy(copy, bytes, n);
    copy[n] = 0;
    return copy;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    const uint8_t *rest;
    size_t n_answer, n_completion = first_part(&rest, &n_answer, bytes, n);
    char *completion = copy_of(bytes, n_completion), *answer = copy_of(rest, n_answer);
    n_answer = strlen(answer); /* dataset_open lets no NUL in */
    Text out = {0};
    for (int i = 0; i < n_extractors; i++) {
        extractors[i]->correct(completion, n_completion, answer, n_answer);
        text_clear(&out);
        if (!extractors[i]->read(&out, completion, n_completion) && out.n) {
            abort();
        }
    }
    text_clear(&out);
    extract_all_json(&out, completion, n_completion);
    JsonDocument *document;
    if (json_parse(&document, text_string(&out), out.n, NULL) != STATUS_OK) {
        abort();
    }
    json_free(document);
    if (!extract_exact_match(completion, n_completion, completion, n_completion) ||
        !latex_equal(answer, n_answer, answer, n_answer)) {
        abort();
    }
    latex_equal(completion, n_completion, answer, n_answer);
    text_release(&out);
    free(completion);
    free(answer);
    return 0;
}
