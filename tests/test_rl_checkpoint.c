/* A learner's state as bytes: read back bit for bit, refused when bent anywhere. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "rl/checkpoint.h"

static Learner test_learner(float *v, float *moments)
{
    return (Learner){.settings = {.optimizer = optimizer_find("adamw")},
                     .n = 3,
                     .v = v,
                     .moments = moments,
                     .step = 7,
                     .updates = 14,
                     .n_tokens = 12345678901};
}

static void check_read_back(TensorType precision)
{
    float v[3] = {0.1f, -0.0f, 3e-42f}, moments[6] = {1, 2, 3, 4, 5, 6};
    float v2[3] = {0}, moments2[6] = {0};
    Learner learner = test_learner(v, moments), read = test_learner(v2, moments2);
    learner.settings.precision = read.settings.precision = precision;
    learner.loss_scale = precision == TENSOR_F16 ? (LossScale){1024, 3} : (LossScale){1, 0};
    read.step = read.updates = read.n_tokens = 0;
    void *bytes;
    size_t n;
    Error error;
    checkpoint_write(&bytes, &n, &learner);
    assert_int_equal(checkpoint_read(&read, bytes, n, &error), STATUS_OK);
    assert_memory_equal(v, v2, sizeof v);
    assert_memory_equal(moments, moments2, sizeof moments);
    assert_true(read.step == 7 && read.updates == 14 && read.n_tokens == 12345678901);
    assert_memory_equal(&read.loss_scale, &learner.loss_scale, sizeof read.loss_scale);
    float *alone;
    size_t n_alone;
    int64_t step;
    assert_int_equal(checkpoint_parameters(&alone, &n_alone, &step, bytes, n, &error), STATUS_OK);
    assert_int_equal(n_alone, 3);
    assert_int_equal(step, 7);
    assert_memory_equal(alone, v, sizeof v);
    free(alone);
    free(bytes);
}

static void a_checkpoint_is_read_back_bit_for_bit(void **state)
{
    (void)state;
    check_read_back(TENSOR_F32);
    check_read_back(TENSOR_F16);
}

/* Budget 13: what is stored of a run between two steps, and what of it is in memory. */
static void the_whole_state_of_thirteen_scalars_is_below_a_kibibyte(void **state)
{
    (void)state;
    enum { BUDGET = 13, COUNTERS = 48, HASH = 64 };
    float v[BUDGET] = {0.5f}, moments[2 * BUDGET] = {0.25f};
    for (int i = 0; i < n_optimizers; i++) {
        Learner learner = test_learner(v, moments);
        learner.n = BUDGET;
        learner.settings.optimizer = optimizers[i];
        size_t arrays = 1 + (size_t)optimizers[i]->n_moments, n;
        void *bytes;
        checkpoint_write(&bytes, &n, &learner);
        assert_int_equal(n, COUNTERS + arrays * BUDGET * sizeof(float) + HASH);
        assert_true(n < 1024);
        assert_true(sizeof learner + arrays * BUDGET * sizeof(float) < 1024);
        free(bytes);
    }
}

static void refuses(const void *bytes, size_t n, int n_parameters, const char *expected)
{
    float v[5] = {9, 9, 9, 9, 9}, moments[10] = {0};
    Learner learner = test_learner(v, moments);
    learner.n = (size_t)n_parameters;
    Error error = {""};
    assert_int_equal(checkpoint_read(&learner, bytes, n, &error), STATUS_REFUSED);
    if (!strstr(error.message, expected)) {
        fail_msg("\"%s\" does not say \"%s\"", error.message, expected);
    }
    assert_true(v[0] == 9 && learner.step == 7); /* unchanged */
}

static void check_bent(TensorType precision)
{
    float v[3] = {0.1f, 0.2f, 0.3f}, moments[6] = {0};
    Learner learner = test_learner(v, moments);
    learner.settings.precision = precision;
    learner.loss_scale = (LossScale){8, 0};
    void *bytes;
    size_t n;
    checkpoint_write(&bytes, &n, &learner);
    unsigned char *bent = malloc(n);
    for (size_t i = 0; i < n; i++) {
        memcpy(bent, bytes, n);
        bent[i] ^= 0x10;
        refuses(bent, n, 3, "checkpoint: ");
        refuses(bytes, i, 3, "checkpoint: ");
    }
    memcpy(bent, bytes, n);
    bent[0] = 'X';
    refuses(bent, n, 3, "does not begin with");
    memcpy(bent, bytes, n);
    bent[4] = 3;
    refuses(bent, n, 3, "version 3, this program reads 1 and 2");
    memcpy(bent, bytes, n);
    bent[n - 70] ^= 1;
    refuses(bent, n, 3, "damaged");
    memset(bent + 8, 0xff, 16);
    refuses(bent, n, 3, "do not hold");
    refuses(bytes, n, 5, "3 parameters with 2 moments, the run has 5");
    if (precision == TENSOR_F16) {
        refuses(bytes, n, 3, "checkpoint: with a loss scale, the run has none");
        free(bytes);
        learner.loss_scale.scale = 0.5;
        checkpoint_write(&bytes, &n, &learner);
        refuses(bytes, n, 3, "a loss scale of 0.5");
    }
    free(bent);
    free(bytes);
}

static void a_bent_checkpoint_is_refused_at_every_byte(void **state)
{
    (void)state;
    check_bent(TENSOR_F32);
    check_bent(TENSOR_F16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_checkpoint_is_read_back_bit_for_bit),
        cmocka_unit_test(the_whole_state_of_thirteen_scalars_is_below_a_kibibyte),
        cmocka_unit_test(a_bent_checkpoint_is_refused_at_every_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
