/* Any bytes as config.json, after a NUL those of generation_config.json: refused, or a config whose
 * tensors can be listed. */
#include <stdlib.h>

#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/memory.h"
#include "tests/fuzz/model_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    char path[96];
    ModelConfig config;
    const uint8_t *rest;
    size_t n_rest, n_config = first_part(&rest, &n_rest, bytes, n);
    if (n_rest) {
        memory_folder_file(path, "generation_config.json", rest, n_rest);
        memory_folder_file(path, "config.json", bytes, n_config);
    } else {
        memory_file(path, bytes, n_config); /* nothing lies beside it */
    }
    Status status = model_config_read(&config, path, NULL);
    if (status == STATUS_OK) {
        check_config(&config);
    } else if (status != STATUS_REFUSED) {
        abort();
    }
    return 0;
}
