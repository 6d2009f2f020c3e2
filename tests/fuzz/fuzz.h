/* What a fuzz target is: one function over bytes that must neither crash nor break what it asserts.
 * Built by clang's libFuzzer with -DTINYLORA_FUZZ=ON (`make fuzz`), else with replay.c, which runs
 * it over files. Inputs of several parts have NUL bytes between them. */
#pragma once
#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);
