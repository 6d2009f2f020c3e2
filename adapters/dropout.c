#include "adapters/dropout.h"

#include <math.h>
#include <stddef.h>

#include "core/random.h"

enum { DRAWN = 8 }; /* numbers a block of random bits decides */

Dropout dropout_of(double p)
{
    uint32_t threshold = (uint32_t)lround(p * 0x1p16);
    threshold = threshold > 0xffff ? 0xffff : threshold;
    return (Dropout){threshold, (float)(1 / (1 - p))};
}

void dropout_columns(float *out, const float *x, int ld, const Dropout *dropout, uint64_t sequence,
                     int module, int position, int rows, int first, int n)
{
    const RandomKey key = {sequence, RANDOM_DROPOUT};
    for (int t = 0; t < rows; t++) {
        for (int i = 0; i < n; i += DRAWN) {
            uint32_t words[DRAWN / 2];
            int end = n - i < DRAWN ? n - i : DRAWN;
            random_words(words, key, (uint32_t)(position + t), (uint32_t)module,
                         (uint32_t)((first + i) / DRAWN), 0);
            for (int e = 0; e < end; e++) {
                uint32_t bits = words[e / 2] >> 16 * (e % 2) & 0xffff;
                float factor = bits < dropout->threshold ? 0 : dropout->kept;
                out[(size_t)t * n + i + e] = x[(size_t)t * ld + i + e] * factor;
            }
        }
    }
}
