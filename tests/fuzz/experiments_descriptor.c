/* Any bytes as an exported adapter's adapter.json, after a NUL those of its v.bin: refused, or
 * settings and finite scalars. */
#include <math.h>
#include <stdlib.h>

#include "experiments/descriptor.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/memory.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static RunAdapter adapter;
    char path[96];
    const uint8_t *rest;
    size_t n_rest, n_descriptor = first_part(&rest, &n_rest, bytes, n);
    memory_folder_file(path, "adapter.json", bytes, n_descriptor);
    memory_folder_file(path, "v.bin", rest, n_rest);
    Status status = descriptor_read(&adapter, memory_folder(), NULL);
    if (status == STATUS_OK) {
        for (size_t i = 0; i < adapter.n; i++) {
            if (!isfinite(adapter.v[i])) {
                abort();
            }
        }
        run_adapter_close(&adapter);
    } else if (status != STATUS_REFUSED) {
        abort();
    }
    return 0;
}
