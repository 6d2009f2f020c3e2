/* What a fuzz target is: one function over bytes that must neither crash nor break what it asserts.
 * Built by clang's libFuzzer with -DTINYLORA_FUZZ=ON, else with fuzz_replay.c, which runs it over
 * files. */
#pragma once
#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);
