/* Any bytes as config.json: refused, or a config whose tensors can be listed. */
#include <stdlib.h>

#include "core/model_config.h"
#include "tests/fuzz.h"
#include "tests/fuzz_memory_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    char path[64];
    ModelConfig config;
    memory_file(path, bytes, n);
    Status status = model_config_read(&config, path, NULL);
    if (status == STATUS_OK) {
        TensorSpec *specs;
        if (model_config_tensors(&specs, &config) < 11 || config.head_dim % 2 ||
            config.n_heads % config.n_kv_heads) {
            abort();
        }
        free(specs);
    } else if (status != STATUS_REFUSED) {
        abort();
    }
    return 0;
}
