#include "adapters/dropout.h"

#include <math.h>
#include <stddef.h>

#include "core/random.h"

enum {
    DRAWN = 8, /* numbers a block of random bits decides */
    BLOCKS = 32
};

Dropout dropout_of(double p)
{
    uint32_t threshold = (uint32_t)lround(p * 0x1p16);
    threshold = threshold > 0xffff ? 0xffff : threshold;
    return (Dropout){threshold, (float)(1 / (1 - p))};
}

/* n numbers of one row, decided by whole blocks. */
static void drop(float *out, const float *x, const uint32_t *words, const Dropout *dropout, int n)
{
    for (int i = 0; i < n; i++) {
        uint32_t bits = words[i / 2] >> 16 * (i % 2) & 0xffff;
        out[i] = x[i] * (bits < dropout->threshold ? 0 : dropout->kept);
    }
}

void dropout_columns(float *out, const float *x, int ld, const Dropout *dropout, uint64_t sequence,
                     int module, int position, int rows, int first, int n)
{
    const RandomKey key = {sequence, RANDOM_DROPOUT};
    uint32_t words[4 * BLOCKS];
    for (int t = 0; t < rows; t++) {
        for (int i = 0; i < n; i += BLOCKS * DRAWN) {
            int some = n - i < BLOCKS * DRAWN ? n - i : BLOCKS * DRAWN;
            random_blocks(words, key, (uint32_t)(position + t), (uint32_t)module,
                          (uint32_t)((first + i) / DRAWN), 0, (some + DRAWN - 1) / DRAWN);
            drop(out + (size_t)t * n + i, x + (size_t)t * ld + i, words, dropout, some);
        }
    }
}
