/* Any bytes as a safetensors file: refused, or tensors whose every byte can be read. The bytes are
 * where the fuzzer has them, so that a sanitizer sees their end; the mapping of a file is
 * core_safetensors_index's. */
#include <stdlib.h>

#include "core/safetensors_shard.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    if (n < 8) {
        return 0; /* refused before */
    }
    Shard shard = {.mapping = (unsigned char *)(uintptr_t)bytes, .n_mapping = n};
    Status status = shard_parse(&shard, NULL);
    volatile uint8_t sum = 0;
    if (status != STATUS_OK && status != STATUS_REFUSED) {
        abort();
    }
    for (size_t i = 0; status == STATUS_OK && i < shard.n; i++) {
        const Tensor *tensor = &shard.tensors[i];
        size_t size = tensor_type_size(tensor->type);
        for (size_t j = 0; j < tensor->n_bytes; j++) {
            sum = (uint8_t)(sum + ((const uint8_t *)tensor->data)[j]);
        }
        if (size) {
            tensor_find_nonfinite(tensor->data, tensor->type, tensor->n_bytes / size);
        }
    }
    shard.mapping = NULL; /* the fuzzer's */
    shard_close(&shard);
    return 0;
}
