/* Random numbers as a pure function of what they are for (DESIGN, the one law).
 * Philox4x32-10 (Salmon et al. 2011): key = (seed, purpose), counter = (a, b, c, d), usually
 * (step, prompt, sample, token). There is no generator and no history. */
#pragma once
#include <stdint.h>

typedef enum {
    RANDOM_SAMPLE = 1,     /* tokens of completions: (step, prompt, sample, token) */
    RANDOM_SHUFFLE = 2,    /* order of data rows: (epoch, index, 0, 0) */
    RANDOM_PROJECTION = 3, /* P of TinyLoRA: seed mixed with the module name's hash */
    RANDOM_SVD = 4,        /* start of the subspace iteration */
    RANDOM_WEIGHT = 5,     /* random models */
    RANDOM_EVAL = 6,       /* evaluation samples: (step, row, sample, token) */
    RANDOM_INIT = 7,       /* start values of v */
    RANDOM_DATA = 8,       /* synthetic data */
    RANDOM_BOOTSTRAP = 9,
    RANDOM_DIRECTION = 10, /* random planes: (direction, index, 0, 0) */
    RANDOM_DROPOUT = 11,   /* a sequence's key: (step, row, sample, update); its masks: dropout.h */
    RANDOM_RESAMPLE = 12   /* rows that replace groups of equal rewards: permuted by (step) */
} RandomPurpose;

typedef struct {
    uint64_t seed;
    RandomPurpose purpose;
} RandomKey;

/* words: (4) 32 random bits each. */
void random_words(uint32_t words[4], RandomKey key, uint32_t a, uint32_t b, uint32_t c, uint32_t d);

/* The blocks at c, c + 1, ... of the same (a, b, d). words: (n_blocks, 4) */
void random_blocks(uint32_t *words, RandomKey key, uint32_t a, uint32_t b, uint32_t c, uint32_t d,
                   int n_blocks);

/* Uniform in [0, 1), 53 bits. */
double random_uniform(RandomKey key, uint32_t a, uint32_t b, uint32_t c, uint32_t d);

/* Standard normal (Box-Muller on one block; no cached second value). */
double random_normal(RandomKey key, uint32_t a, uint32_t b, uint32_t c, uint32_t d);

/* A seed of its own for each name: splitmix of (seed, FNV-1a of the name). */
uint64_t random_seed_for(uint64_t seed, const char *name);

/* permutation: (n) becomes a shuffle of 0..n-1, a function of (key, epoch) alone. */
void random_permutation(int *permutation, int n, RandomKey key, uint32_t epoch);
