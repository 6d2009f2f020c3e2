/* Philox4x32-10 from the Random123 headers, and the few laws made of it. */
#include "core/random.h"

#include <Random123/philox.h>
#include <math.h>
#include <string.h>

/* The purpose is mixed into the 64-bit key so that any 64-bit seed is allowed. */
static philox4x32_key_t philox_key_of(RandomKey key)
{
    uint64_t mixed = key.seed + 0x9e3779b97f4a7c15u * (uint64_t)key.purpose;
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9u;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebu;
    mixed ^= mixed >> 31;
    return (philox4x32_key_t){{(uint32_t)mixed, (uint32_t)(mixed >> 32)}};
}

void random_blocks(uint32_t *words, RandomKey key, uint32_t a, uint32_t b, uint32_t c, uint32_t d,
                   int n_blocks)
{
    philox4x32_key_t philox_key = philox_key_of(key);
    for (int i = 0; i < n_blocks; i++) {
        philox4x32_ctr_t counter = {{a, b, c + (uint32_t)i, d}};
        philox4x32_ctr_t result = philox4x32(counter, philox_key);
        memcpy(words + 4 * (size_t)i, result.v, sizeof result.v);
    }
}

void random_words(uint32_t words[4], RandomKey key, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    random_blocks(words, key, a, b, c, d, 1);
}

static double to_uniform(uint32_t high, uint32_t low)
{
    return (double)((((uint64_t)high << 32) | low) >> 11) * 0x1p-53;
}

double random_uniform(RandomKey key, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    uint32_t words[4];
    random_words(words, key, a, b, c, d);
    return to_uniform(words[0], words[1]);
}

double random_normal(RandomKey key, uint32_t a, uint32_t b, uint32_t c, uint32_t d)
{
    uint32_t words[4];
    random_words(words, key, a, b, c, d);
    double radius = sqrt(-2.0 * log1p(-to_uniform(words[0], words[1])));
    return radius * cos(6.283185307179586476925 * to_uniform(words[2], words[3]));
}

uint64_t random_seed_for(uint64_t seed, const char *name)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (; *name; name++) {
        hash = (hash ^ (unsigned char)*name) * 0x100000001b3u;
    }
    uint64_t mixed = seed * 0x9e3779b97f4a7c15u + hash;
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9u;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebu;
    return mixed ^ (mixed >> 31);
}

void random_permutation(int *permutation, int n, RandomKey key, uint32_t epoch)
{
    for (int i = 0; i < n; i++) {
        permutation[i] = i;
    }
    for (int i = n - 1; i > 0; i--) {
        int j = (int)(random_uniform(key, epoch, (uint32_t)i, 0, 0) * (i + 1));
        int swap = permutation[i];
        permutation[i] = permutation[j];
        permutation[j] = swap;
    }
}
