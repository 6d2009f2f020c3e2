/* SHA-256 (FIPS 180-4), as lower-case hex. */
#pragma once
#include <stddef.h>

#include "core/status.h"

#define SHA256_HEX_SIZE 65

typedef struct Sha256 Sha256;
Sha256 *sha256_new(void);
void sha256_update(Sha256 *state, const void *bytes, size_t n);
void sha256_finish(Sha256 *state, char hex[SHA256_HEX_SIZE]); /* frees state */

void sha256_bytes(char hex[SHA256_HEX_SIZE], const void *bytes, size_t n);
Status sha256_file(char hex[SHA256_HEX_SIZE], const char *path, Error *error);
