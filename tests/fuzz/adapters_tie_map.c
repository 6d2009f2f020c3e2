/* Any bytes as a tie map of a model of two layers: refused, or a group for each module, none
 * empty. */
#include <stdlib.h>

#include "adapters/tie_map.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/memory.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static const ModelConfig config = {
        .n_layers = 2, .width = 4, .n_heads = 2, .n_kv_heads = 1, .head_dim = 2, .ff_width = 6};
    static const Module modules[] = {
        {.layer = 0, .role = ROLE_Q}, {.layer = 0, .role = ROLE_O}, {.layer = 1, .role = ROLE_Q}};
    enum { N_MODULES = sizeof modules / sizeof *modules };
    char path[64];
    int *map, groups, seen[N_MODULES] = {0};
    memory_file(path, bytes, n);
    Status status = tie_map_read(&map, &groups, path, &config, modules, N_MODULES, NULL);
    if (status == STATUS_OK) {
        for (int i = 0; i < N_MODULES; i++) {
            if (map[i] < 0 || map[i] >= groups || groups > N_MODULES) {
                abort();
            }
            seen[map[i]] = 1;
        }
        for (int g = 0; g < groups; g++) {
            if (!seen[g]) {
                abort();
            }
        }
        free(map);
    } else if (status != STATUS_REFUSED) {
        abort();
    }
    return 0;
}
