/* SHA-256 by nettle; the only file that includes it. */
#include "core/sha256.h"

#include <errno.h>
#include <nettle/sha2.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/file.h"

/* nettle renames its functions by macros that would rename ours. */
#undef sha256_init
#undef sha256_update
#undef sha256_digest

struct Sha256 {
    struct sha256_ctx context;
};

static void to_hex(char hex[SHA256_HEX_SIZE], struct sha256_ctx *context)
{
    uint8_t digest[SHA256_DIGEST_SIZE];
    nettle_sha256_digest(context, sizeof digest, digest);
    for (size_t i = 0; i < sizeof digest; i++) {
        hex[2 * i] = "0123456789abcdef"[digest[i] >> 4];
        hex[2 * i + 1] = "0123456789abcdef"[digest[i] & 15];
    }
    hex[SHA256_HEX_SIZE - 1] = 0;
}

Sha256 *sha256_new(void)
{
    Sha256 *state = malloc(sizeof *state);
    if (!state) {
        abort(); /* about a hundred bytes: no way on without them */
    }
    nettle_sha256_init(&state->context);
    return state;
}

void sha256_update(Sha256 *state, const void *bytes, size_t n)
{
    nettle_sha256_update(&state->context, n, bytes);
}

void sha256_finish(Sha256 *state, char hex[SHA256_HEX_SIZE])
{
    to_hex(hex, &state->context);
    free(state);
}

void sha256_bytes(char hex[SHA256_HEX_SIZE], const void *bytes, size_t n)
{
    struct sha256_ctx context;
    nettle_sha256_init(&context);
    nettle_sha256_update(&context, n, bytes);
    to_hex(hex, &context);
}

Status sha256_file(char hex[SHA256_HEX_SIZE], const char *path, Error *error)
{
    int fd;
    size_t size;
    Status status = file_open(&fd, &size, path, error);
    if (status != STATUS_OK) {
        return status;
    }
    struct sha256_ctx context;
    nettle_sha256_init(&context);
    static const size_t CHUNK = 1 << 18;
    uint8_t *buffer = malloc(CHUNK);
    ssize_t got = buffer ? 1 : -1;
    while (buffer && got != 0) {
        got = read(fd, buffer, CHUNK);
        if (got > 0) {
            nettle_sha256_update(&context, (size_t)got, buffer);
        } else if (got < 0 && errno != EINTR) {
            break;
        }
    }
    if (got != 0) {
        status = error_set(error, STATUS_FAILED, "%s: cannot be read: %s", path, strerror(errno));
    } else {
        to_hex(hex, &context);
    }
    free(buffer);
    close(fd);
    return status;
}
