/* Any bytes as model.safetensors.index.json, after a NUL those of its first shard, a.safetensors;
 * b.safetensors is whole. Refused, or a set of tensors that are found by name and can be read. */
#include <stdlib.h>

#include "core/safetensors.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/memory.h"

static const char a[] = "\x40\0\0\0\0\0\0\0"
                        "{\"a.x\": {\"dtype\":\"BF16\",\"shape\":[2,1],\"data_offsets\":[0,4]}}    "
                        "abcd";
static const char b[] = "\x40\0\0\0\0\0\0\0"
                        "{\"b\": {\"dtype\":  \"F32\",\"shape\":[ 1 ],\"data_offsets\":[0,4]}}     "
                        "ABCD";

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    char index[96], shard[96];
    const uint8_t *rest;
    size_t n_rest, n_index = first_part(&rest, &n_rest, bytes, n);
    memory_folder_file(index, "m.safetensors.index.json", bytes, n_index);
    memory_folder_file(shard, "a.safetensors", n_rest ? (const void *)rest : a,
                       n_rest ? n_rest : sizeof a - 1);
    memory_folder_file(shard, "b.safetensors", b, sizeof b - 1);
    SafeTensors *file;
    Status status = safetensors_open(&file, index, NULL);
    if (status != STATUS_OK) {
        if (status != STATUS_REFUSED && status != STATUS_FAILED) { /* a shard that is not there */
            abort();
        }
        return 0;
    }
    volatile uint8_t sum = 0;
    for (size_t i = 0; i < safetensors_count(file); i++) {
        const Tensor *tensor = safetensors_at(file, i);
        for (size_t j = 0; j < tensor->n_bytes; j++) {
            sum = (uint8_t)(sum + ((const uint8_t *)tensor->data)[j]);
        }
        if (safetensors_find(file, tensor->name) != tensor) {
            abort();
        }
    }
    safetensors_metadata(file, "format");
    safetensors_close(file);
    return 0;
}
