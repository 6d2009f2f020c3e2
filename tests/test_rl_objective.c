/* Advantages, the token loss, its derivative and the normalisers, against naive formulas and
 * differences. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/random.h"
#include "rl/advantage.h"
#include "rl/objective.h"

static void close_to(double value, double expected, double tolerance)
{
    if (!(fabs(value - expected) <= tolerance)) {
        fail_msg("%.17g is not %.17g within %g", value, expected, tolerance);
    }
}

static void advantages_are_those_of_the_formula(void **state)
{
    (void)state;
    const double rewards[12] = {1, 0, 0.5, 0.25, 1, 1, 1, 1, 0.1, 0.1, 0.1, 0.9};
    /* by Python's statistics module; 1e-11: printed digits */
    const double group[12] = {
        1.317156599307,  -1.024455132795, 0.146350733256,  -0.439052199769, 0, 0, 0, 0,
        -0.499875031242, -0.499875031242, -0.499875031242, 1.499625093727};
    const double batch[12] = {
        1.278811709784,  -0.994631329832, 0.142090189976,  -0.426270569928, 0, 0, 0, 0,
        -0.454688607923, -0.454688607923, -0.454688607923, 1.364065823770};
    double advantages[12], stds[3];
    advantage_compute(advantages, stds, rewards, SCALE_GROUP, 3, 4);
    for (int i = 0; i < 12; i++) {
        close_to(advantages[i], group[i], 1e-11);
    }
    close_to(stds[0], 0.42695628191498325, 1e-15);
    assert_true(stds[1] == 0);
    advantage_compute(advantages, NULL, rewards, SCALE_BATCH, 3, 4);
    for (int i = 0; i < 12; i++) {
        close_to(advantages[i], batch[i], 1e-11);
    }
    advantage_compute(advantages, NULL, rewards, SCALE_NONE, 3, 4);
    close_to(advantages[0], 0.5625, 0);
    close_to(advantages[11], 0.6, 1e-15);
}

/* 0.1 + 0.1 + 0.1 rounds, so a mean taken naively is not 0.1. */
static void equal_rewards_have_advantages_of_exactly_zero(void **state)
{
    (void)state;
    const double rewards[3] = {0.1, 0.1, 0.1}, alone[1] = {0.7};
    double advantages[3], stds[1];
    advantage_compute(advantages, stds, rewards, SCALE_NONE, 1, 3);
    assert_true(advantages[0] == 0 && advantages[1] == 0 && advantages[2] == 0 && stds[0] == 0);
    advantage_compute(advantages, stds, alone, SCALE_GROUP, 1, 1);
    assert_true(advantages[0] == 0);
}

static double naive_loss(const Objective *o, double A, double lp, double old, double base)
{
    double ratio = exp(lp - old);
    double clipped = fmin(fmax(ratio, 1 - o->clip_low), 1 + o->clip_high);
    return -fmin(ratio * A, clipped * A) + o->kl_beta * (exp(base - lp) - (base - lp) - 1);
}

static void token_loss_and_derivative_match_the_formula_and_differences(void **state)
{
    (void)state;
    const uint64_t seed = 20261120;
    RandomKey key = {seed, RANDOM_DATA};
    int n_low = 0, n_high = 0;
    for (uint32_t i = 0; i < 2000; i++) {
        Objective objective = {.clip_low = 0.2, .clip_high = 0.28, .kl_beta = i % 3 * 0.04};
        double A = random_normal(key, i, 0, 0, 0), lp = -3 * random_uniform(key, i, 1, 0, 0);
        double old = lp + 0.3 * random_normal(key, i, 2, 0, 0);
        double base = lp + random_normal(key, i, 3, 0, 0);
        TokenLoss token = objective_token(&objective, A, lp, old, base);
        close_to(token.loss, naive_loss(&objective, A, lp, old, base), 1e-13);
        n_low += token.clipped_low;
        n_high += token.clipped_high;
        const double h = 1e-6;
        double difference = (naive_loss(&objective, A, lp + h, old, base) -
                             naive_loss(&objective, A, lp - h, old, base)) /
                            (2 * h);
        double ratio = exp(lp - old); /* at a kink a difference means nothing */
        if (fabs(ratio - 0.8) > 1e-4 && fabs(ratio - 1.28) > 1e-4) {
            close_to(token.dlogprob, difference, 1e-7 * (1 + fabs(difference)));
        }
    }
    assert_true(n_low > 50 && n_high > 50);
}

static void on_policy_the_ratio_is_one_and_nothing_is_clipped(void **state)
{
    (void)state;
    Objective objective = {.clip_low = 0, .clip_high = 0, .kl_beta = 0.1};
    TokenLoss token = objective_token(&objective, 0.7, -1.3, -1.3, -1.3);
    assert_true(token.ratio == 1 && !token.clipped_low && !token.clipped_high && token.kl == 0);
    assert_true(token.loss == -0.7 && token.dlogprob == -0.7);
    objective.kl_beta = 0; /* then the base is not looked at */
    token = objective_token(&objective, 0.7, -1.3, -1.3, NAN);
    assert_true(token.loss == -0.7);
}

static void losses_differ_in_their_normaliser(void **state)
{
    (void)state;
    LossBatch batch = {.n_completions = 4, .n_tokens = 50, .max_new_tokens = 16};
    close_to(loss_find("grpo")->weight(&batch, 10), 1.0 / 40, 1e-17);
    close_to(loss_find("dr_grpo")->weight(&batch, 10), 1.0 / 64, 1e-17);
    close_to(loss_find("dapo")->weight(&batch, 10), 1.0 / 50, 1e-17);
    close_to(loss_find("bnpo")->weight(&batch, 10), 1.0 / 50, 1e-17);
    assert_null(loss_find("ppo"));
    AdvantageScale scale;
    assert_true(advantage_scale_find(&scale, "batch") && scale == SCALE_BATCH);
    assert_false(advantage_scale_find(&scale, "all"));
    assert_string_equal(advantage_scale_name(SCALE_NONE), "none");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(advantages_are_those_of_the_formula),
        cmocka_unit_test(equal_rewards_have_advantages_of_exactly_zero),
        cmocka_unit_test(token_loss_and_derivative_match_the_formula_and_differences),
        cmocka_unit_test(on_policy_the_ratio_is_one_and_nothing_is_clipped),
        cmocka_unit_test(losses_differ_in_their_normaliser),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
