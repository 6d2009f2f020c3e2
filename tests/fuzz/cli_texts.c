/* Any bytes as a file of texts, a line each, some of them JSON: refused, or texts that end where
 * they say, in the order of their lines. */
#include "cli/texts.h"

#include <stdlib.h>

#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/memory.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    char path[64];
    InputText *texts;
    size_t n_texts;
    memory_file(path, bytes, n);
    Status status = texts_read(&texts, &n_texts, path, NULL);
    if (status != STATUS_OK) {
        if (status != STATUS_REFUSED) {
            abort();
        }
        return 0;
    }
    for (size_t i = 0; i < n_texts; i++) {
        if (texts[i].bytes[texts[i].n] != 0 || texts[i].line != (int)i + 1) {
            abort();
        }
    }
    texts_free(texts, n_texts);
    return 0;
}
