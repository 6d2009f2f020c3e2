/* Any bytes as a learner's checkpoint, as they are and with their SHA-256 put right: refused, or
 * read, and what a learner that took them writes is the same bytes. */
#include <stdlib.h>
#include <string.h>

#include "core/sha256.h"
#include "rl/checkpoint.h"
#include "tests/fuzz/fuzz.h"

enum { N = 3, HASH_BYTES = SHA256_HEX_SIZE - 1 };

static void read_blob(const void *bytes, size_t n)
{
    float *v, values[N] = {0}, moments[2 * N] = {0};
    size_t n_v, n_again;
    int64_t step;
    Status status = checkpoint_parameters(&v, &n_v, &step, bytes, n, NULL);
    if (status == STATUS_OK) {
        volatile float sum = 0;
        for (size_t i = 0; i < n_v; i++) {
            sum += v[i];
        }
        free(v);
    } else if (status != STATUS_REFUSED) {
        abort();
    }
    Learner learner = {.n = N, .v = values, .moments = moments};
    learner.settings.optimizer = optimizer_find("adamw");
    if (checkpoint_read(&learner, bytes, n, NULL) == STATUS_OK) {
        void *again;
        checkpoint_write(&again, &n_again, &learner);
        if (n_again != n || memcmp(again, bytes, n) != 0) {
            abort();
        }
        free(again);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    read_blob(bytes, n);
    if (n >= HASH_BYTES) {
        char hex[SHA256_HEX_SIZE], *copy = malloc(n);
        if (!copy) {
            abort();
        }
        memcpy(copy, bytes, n);
        sha256_bytes(hex, copy, n - HASH_BYTES);
        memcpy(copy + n - HASH_BYTES, hex, HASH_BYTES);
        read_blob(copy, n);
        free(copy);
    }
    return 0;
}
