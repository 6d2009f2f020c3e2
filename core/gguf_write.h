/* The pieces of a GGUF file, appended to a header in memory: version, counts, values, tensors; then
 * the data goes to the file as it comes. */
#pragma once
#include "core/gguf.h"
#include "core/text.h"

void gguf_add_start(Text *header, size_t n_tensors, size_t n_values);
void gguf_add_string(Text *header, const char *key, const char *value);
void gguf_add_u32(Text *header, const char *key, uint32_t value);
void gguf_add_f32(Text *header, const char *key, float value);
/* tensor: its name, type and dims, the slowest first. *offset: of its data; moves on by n_bytes and
 * the padding. */
void gguf_add_tensor(Text *header, const Tensor *tensor, size_t alignment, size_t *offset);
/* Up to where the data begin. */
void gguf_add_padding(Text *header, size_t alignment);

size_t gguf_padded(size_t n, size_t alignment);
