/* Any bytes as a safetensors file: refused, or tensors whose every byte can be read. */
#include <stdlib.h>

#include "core/safetensors.h"
#include "tests/fuzz.h"
#include "tests/fuzz_memory_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    char path[64];
    SafeTensors *file;
    memory_file(path, bytes, n);
    Status status = safetensors_open(&file, path, NULL);
    if (status != STATUS_OK) {
        if (status != STATUS_REFUSED) {
            abort();
        }
        return 0;
    }
    volatile uint8_t sum = 0;
    for (size_t i = 0; i < safetensors_count(file); i++) {
        const Tensor *tensor = safetensors_at(file, i);
        size_t size = tensor_type_size(tensor->type);
        for (size_t j = 0; j < tensor->n_bytes; j++) {
            sum = (uint8_t)(sum + ((const uint8_t *)tensor->data)[j]);
        }
        if (size) {
            tensor_find_nonfinite(tensor->data, tensor->type, tensor->n_bytes / size);
        }
        if (safetensors_find(file, tensor->name) != tensor) {
            abort();
        }
    }
    safetensors_close(file);
    return 0;
}
