/* Layout, little-endian: magic "TLCK", u32 version, u64 parameters, u64 moment arrays, i64 step,
 * i64 updates, i64 tokens, in version 2 f64 loss scale, i64 updates since it changed, then f32 v[],
 * f32 moments[][], and the SHA-256 of all before as 64 hex digits. Version 2 where there is a loss
 * scale, version 1 elsewhere. Not a file: results/ keeps it. */
#include "rl/checkpoint.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/sha256.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "checkpoints are little-endian");

enum { PLAIN = 1, SCALED = 2, HASH_BYTES = 64 };

typedef struct {
    char magic[4];
    uint32_t version;
    uint64_t n, n_moments;
    int64_t step, updates, n_tokens;
    LossScale loss_scale; /* SCALED alone has it */
} Header;

_Static_assert(offsetof(Header, loss_scale) == 48 && sizeof(Header) == 64, "no padding");

static size_t header_bytes(const Header *header)
{
    return header->version == SCALED ? sizeof *header : offsetof(Header, loss_scale);
}

static void make(void **bytes, size_t *n_bytes, const Header *header, const float *v,
                 const float *moments)
{
    size_t v_bytes = (size_t)header->n * sizeof(float);
    size_t moment_bytes = (size_t)header->n_moments * v_bytes;
    size_t head = header_bytes(header), body = head + v_bytes + moment_bytes;
    char *made = malloc(body + HASH_BYTES);
    if (!made) {
        abort(); /* of the size of the learner's own state */
    }
    memcpy(made, header, head);
    if (v_bytes) {
        memcpy(made + head, v, v_bytes);
    }
    if (moments) {
        memcpy(made + head + v_bytes, moments, moment_bytes);
    }
    char hex[SHA256_HEX_SIZE];
    sha256_bytes(hex, made, body);
    memcpy(made + body, hex, HASH_BYTES);
    *bytes = made;
    *n_bytes = body + HASH_BYTES;
}

void checkpoint_write(void **bytes, size_t *n_bytes, const Learner *learner)
{
    Header header = {.magic = "TLCK",
                     .version = learner->settings.precision == TENSOR_F16 ? SCALED : PLAIN,
                     .n = learner->n,
                     .n_moments = (uint64_t)learner->settings.optimizer->n_moments,
                     .step = learner->step,
                     .updates = learner->updates,
                     .n_tokens = learner->n_tokens,
                     .loss_scale = learner->loss_scale};
    make(bytes, n_bytes, &header, learner->v, learner->moments);
}

void checkpoint_of_parameters(void **bytes, size_t *n_bytes, const float *v, size_t n, int64_t step)
{
    Header header = {.magic = "TLCK", .version = PLAIN, .n = n, .step = step};
    make(bytes, n_bytes, &header, v, NULL);
}

static Status read_header(Header *header, const void *bytes, size_t n_bytes, Error *error)
{
    size_t head = offsetof(Header, loss_scale);
    if (n_bytes < head + HASH_BYTES) {
        return error_set(error, STATUS_REFUSED, "checkpoint: %zu bytes, at least %zu expected",
                         n_bytes, head + HASH_BYTES);
    }
    *header = (Header){.loss_scale.scale = 1};
    memcpy(header, bytes, head);
    if (memcmp(header->magic, "TLCK", 4) != 0) {
        return error_set(error, STATUS_REFUSED, "checkpoint: does not begin with \"TLCK\"");
    }
    if (header->version != PLAIN && header->version != SCALED) {
        return error_set(error, STATUS_REFUSED,
                         "checkpoint: version %u, this program reads 1 and 2", header->version);
    }
    head = header_bytes(header);
    if (n_bytes < head + HASH_BYTES) {
        return error_set(error, STATUS_REFUSED, "checkpoint: %zu bytes, at least %zu expected",
                         n_bytes, head + HASH_BYTES);
    }
    memcpy(header, bytes, head);
    size_t payload = n_bytes - head - HASH_BYTES, values;
    uint64_t rows;
    if (__builtin_add_overflow(header->n_moments, (uint64_t)1, &rows) ||
        __builtin_mul_overflow(header->n, rows, &values) ||
        __builtin_mul_overflow(values, sizeof(float), &values) || values != payload) {
        return error_set(error, STATUS_REFUSED,
                         "checkpoint: %zu bytes of values do not hold %llu parameters and %llu "
                         "moments of each",
                         payload, (unsigned long long)header->n,
                         (unsigned long long)header->n_moments);
    }
    char hex[SHA256_HEX_SIZE];
    sha256_bytes(hex, bytes, n_bytes - HASH_BYTES);
    if (memcmp(hex, (const char *)bytes + n_bytes - HASH_BYTES, HASH_BYTES) != 0) {
        return error_set(error, STATUS_REFUSED, "checkpoint: damaged (its SHA-256 differs)");
    }
    if (header->step < 0 || header->updates < 0 || header->n_tokens < 0) {
        return error_set(error, STATUS_REFUSED, "checkpoint: a negative counter");
    }
    const LossScale *s = &header->loss_scale;
    if (!isfinite(s->scale) || s->scale < LOSS_SCALE_LEAST || s->good < 0) {
        return error_set(error, STATUS_REFUSED, "checkpoint: a loss scale of %g after %lld updates",
                         s->scale, (long long)s->good);
    }
    return STATUS_OK;
}

Status checkpoint_read(Learner *learner, const void *bytes, size_t n_bytes, Error *error)
{
    Header header;
    Status status = read_header(&header, bytes, n_bytes, error);
    if (status) {
        return status;
    }
    uint64_t n_moments = (uint64_t)learner->settings.optimizer->n_moments;
    if (header.n != learner->n || header.n_moments != n_moments) {
        return error_set(error, STATUS_REFUSED,
                         "checkpoint: %llu parameters with %llu moments, the run has %zu with %llu",
                         (unsigned long long)header.n, (unsigned long long)header.n_moments,
                         learner->n, (unsigned long long)n_moments);
    }
    bool scaled = learner->settings.precision == TENSOR_F16;
    if (scaled != (header.version == SCALED)) {
        return error_set(error, STATUS_REFUSED, "checkpoint: %s a loss scale, the run has %s",
                         scaled ? "without" : "with", scaled ? "one" : "none");
    }
    size_t v_bytes = learner->n * sizeof(float);
    const char *values = (const char *)bytes + header_bytes(&header);
    if (v_bytes) {
        memcpy(learner->v, values, v_bytes);
    }
    if (v_bytes && n_moments) {
        memcpy(learner->moments, values + v_bytes, n_moments * v_bytes);
    }
    learner->step = header.step;
    learner->updates = header.updates;
    learner->n_tokens = header.n_tokens;
    learner->loss_scale = header.loss_scale;
    return STATUS_OK;
}

Status checkpoint_parameters(float **v, size_t *n, int64_t *step, const void *bytes, size_t n_bytes,
                             Error *error)
{
    Header header;
    Status status = read_header(&header, bytes, n_bytes, error);
    if (status) {
        return status;
    }
    size_t v_bytes = (size_t)header.n * sizeof(float);
    float *made = malloc(v_bytes + 1);
    if (!made) {
        return error_set(error, STATUS_FAILED, "no memory for %.2f GiB of parameters",
                         (double)v_bytes / (double)((size_t)1 << 30));
    }
    memcpy(made, (const char *)bytes + header_bytes(&header), v_bytes);
    *v = made;
    *n = (size_t)header.n;
    *step = header.step;
    return STATUS_OK;
}
