/* Large blocks of memory: weights, activations, tables. */
#pragma once
#include <stddef.h>

/* 64-byte aligned; from 2 MiB on it starts on a huge page and asks the system for such pages, which
 * cost fewer faults when it is filled and fewer misses when it is read. Not cleared, and not
 * resident before it is written to. NULL without memory; free() takes it back. */
void *block_new(size_t bytes);
