/* Any bytes as adapter_config.json, after a NUL those of adapter_model.safetensors, for a model of
 * one small layer: refused, or a LoRA of finite numbers. */
#include <math.h>
#include <stdlib.h>

#include "adapters/peft.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/memory.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static const ModelConfig config = {.n_layers = 1,
                                       .width = 4,
                                       .n_heads = 2,
                                       .n_kv_heads = 1,
                                       .head_dim = 2,
                                       .ff_width = 6,
                                       .vocab_size = 8,
                                       .max_positions = 16};
    char path[96];
    PeftAdapter adapter;
    const uint8_t *rest;
    size_t n_rest, n_config = first_part(&rest, &n_rest, bytes, n);
    memory_folder_file(path, PEFT_CONFIG_FILE, bytes, n_config);
    memory_folder_file(path, PEFT_WEIGHTS_FILE, rest, n_rest);
    Status status = peft_read(&adapter, memory_folder(), &config, NULL);
    if (status == STATUS_OK) {
        for (size_t i = 0; i < adapter.n; i++) {
            if (!isfinite(adapter.v[i])) {
                abort();
            }
        }
        if (adapter.rank < 1 || !adapter.targets || !isfinite(adapter.alpha)) {
            abort();
        }
        free(adapter.v);
    } else if (status != STATUS_REFUSED) {
        abort();
    }
    return 0;
}
