/* Inverted dropout of an adapter's input (Srivastava et al. 2014; as PEFT's lora_dropout): a number
 * is 0 with probability p, else multiplied by 1 / (1 - p). The mask is a function of what the token
 * is, so that the backward draws it again and nothing is kept. */
#pragma once
#include <stdint.h>

typedef struct {
    uint32_t threshold; /* p in parts of 2^16; 0: no dropout */
    float kept;         /* 1 / (1 - p) */
} Dropout;

/* 0 <= p < 1; p is rounded to parts of 2^16. */
Dropout dropout_of(double p);

/* out = x, masked; may be x where ld is n. Number i of a row is dropped when its 16 bits are below
 * the threshold: those at i % 8 / 2 (word) and i % 2 (half, low first) of the block at counter
 * (position, module, i / 8, 0) under the key (sequence, RANDOM_DROPOUT).
 * out: (rows, n)   x: (rows, n) at ld floats a row, columns `first` and on of the layer's input,
 * first a multiple of 8   module: layer * N_ROLES + role   position: of row 0 in its sequence */
void dropout_columns(float *out, const float *x, int ld, const Dropout *dropout, uint64_t sequence,
                     int module, int position, int rows, int first, int n);
