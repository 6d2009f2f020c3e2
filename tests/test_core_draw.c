/* Drawing from hand-made rows: which tokens are kept, with which frequency. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/draw.h"

enum { MOST = 8, DRAWS = 4000 };

/* p: (V) masses, binary fractions, so that every sum is exact; frequencies by even steps of u. */
static void keeps(const float *p, int V, DrawLimits limits, const float *expected)
{
    float logits[MOST], e[MOST];
    int32_t order[MOST];
    int counts[MOST] = {0};
    for (int v = 0; v < V; v++) {
        logits[v] = logf(p[v]);
        e[v] = p[v];
    }
    for (int i = 0; i < DRAWS; i++) {
        int32_t token = draw_restricted(&limits, logits, e, order, V, (i + 0.5) / DRAWS);
        assert_in_range(token, 0, V - 1);
        counts[token]++;
    }
    for (int v = 0; v < V; v++) {
        assert_true(fabs(counts[v] - (double)expected[v] * DRAWS) <= 1);
        assert_int_equal(counts[v] == 0, expected[v] == 0);
    }
}

static const float halves[5] = {0.125f, 0.5f, 0.0625f, 0.25f, 0.0625f};

static void top_p_keeps_the_smallest_set_and_the_token_that_reaches_p_is_in(void **state)
{
    (void)state;
    keeps(halves, 5, (DrawLimits){.top_p = 0.5f}, (float[5]){0, 1});
    keeps(halves, 5, (DrawLimits){.top_p = 0.25f}, (float[5]){0, 1});
    keeps(halves, 5, (DrawLimits){.top_p = 0.51f}, (float[5]){0, 2 / 3.0f, 0, 1 / 3.0f});
    keeps(halves, 5, (DrawLimits){.top_p = 0.75f}, (float[5]){0, 2 / 3.0f, 0, 1 / 3.0f});
    keeps(halves, 5, (DrawLimits){.top_p = 0.76f}, (float[5]){1 / 7.0f, 4 / 7.0f, 0, 2 / 7.0f});
    keeps(halves, 5, (DrawLimits){.top_p = 1}, halves);
}

static void ties_go_to_the_smaller_ids(void **state)
{
    (void)state;
    const float flat[4] = {1, 1, 1, 1};
    keeps(flat, 4, (DrawLimits){.top_p = 0.75f}, (float[4]){1 / 3.0f, 1 / 3.0f, 1 / 3.0f});
    keeps(flat, 4, (DrawLimits){.top_p = 0.5f}, (float[4]){0.5f, 0.5f});
    keeps(flat, 4, (DrawLimits){.top_k = 1, .top_p = 1}, (float[4]){1});
    keeps(flat, 4, (DrawLimits){.top_p = 1, .min_p = 1}, (float[4]){.25f, .25f, .25f, .25f});
    /* 0.9375 is reached by the first of the two tokens of 1/16 */
    keeps(halves, 5, (DrawLimits){.top_p = 0.9375f},
          (float[5]){2 / 15.0f, 8 / 15.0f, 1 / 15.0f, 4 / 15.0f});
}

static void min_p_is_a_share_of_the_likeliest(void **state)
{
    (void)state;
    keeps(halves, 5, (DrawLimits){.top_p = 1, .min_p = 1}, (float[5]){0, 1});
    keeps(halves, 5, (DrawLimits){.top_p = 1, .min_p = 0.5f}, (float[5]){0, 2 / 3.0f, 0, 1 / 3.0f});
    keeps(halves, 5, (DrawLimits){.top_p = 1, .min_p = 0.51f}, (float[5]){0, 1});
    keeps(halves, 5, (DrawLimits){.top_p = 1, .min_p = 0.25f},
          (float[5]){1 / 7.0f, 4 / 7.0f, 0, 2 / 7.0f});
    keeps(halves, 5, (DrawLimits){.top_p = 1, .min_p = 0.125f}, halves);
}

static void cuts_go_one_after_the_other(void **state)
{
    (void)state;
    /* of the two likeliest (mass 0.75) 2/3 is the share of the first */
    keeps(halves, 5, (DrawLimits){.top_k = 2, .top_p = 0.66f}, (float[5]){0, 1});
    keeps(halves, 5, (DrawLimits){.top_k = 2, .top_p = 0.67f},
          (float[5]){0, 2 / 3.0f, 0, 1 / 3.0f});
    keeps(halves, 5, (DrawLimits){.top_k = 3, .top_p = 1, .min_p = 0.3f},
          (float[5]){0, 2 / 3.0f, 0, 1 / 3.0f});
    keeps(halves, 5, (DrawLimits){.top_k = 3, .top_p = 0.5f, .min_p = 0.1f}, (float[5]){0, 1});
}

static void masked_tokens_are_never_drawn(void **state)
{
    (void)state;
    const float masked[5] = {0, 0, 1, 0, 0}, two[5] = {0, 0.5f, 0, 0.5f, 0};
    keeps(masked, 5, (DrawLimits){.top_p = 1, .min_p = 0.01f}, masked);
    keeps(masked, 5, (DrawLimits){.top_p = 0.9f}, masked);
    keeps(two, 5, (DrawLimits){.top_k = 4, .top_p = 1}, two);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(draw_any(masked, 5, i / 100.0), 2);
    }
    assert_int_equal(draw_any(two, 5, nextafter(1, 0)), 3);
}

static void a_penalty_divides_positive_logits_and_multiplies_negative_ones_once(void **state)
{
    (void)state;
    const float logits[5] = {3, -1.5f, 0, 2.5f, -4};
    float penalized[5];
    memcpy(penalized, logits, sizeof logits);
    draw_penalize(penalized, logits, (int32_t[]){0, 1, 0, 2, 0, 1}, 6, 2);
    assert_memory_equal(penalized, ((float[5]){1.5f, -3, 0, 2.5f, -4}), sizeof penalized);
    assert_int_equal(draw_largest(logits, 5), 0);
    assert_int_equal(draw_largest(penalized, 5), 3);
    assert_int_equal(draw_largest((float[]){1, 2, 2}, 3), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(top_p_keeps_the_smallest_set_and_the_token_that_reaches_p_is_in),
        cmocka_unit_test(ties_go_to_the_smaller_ids),
        cmocka_unit_test(min_p_is_a_share_of_the_likeliest),
        cmocka_unit_test(cuts_go_one_after_the_other),
        cmocka_unit_test(masked_tokens_are_never_drawn),
        cmocka_unit_test(a_penalty_divides_positive_logits_and_multiplies_negative_ones_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
