/* Advantages, losses and their gradients, against formulas in double and central differences, and
 * against figures of TRL's own code (tests/trl_golden.py). */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/json.h"
#include "core/random.h"
#include "rl/advantage.h"
#include "rl/objective.h"
#include "tests/loss_reference.h"

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
    advantage_compute(advantages, stds, rewards, SCALE_GROUP, BASELINE_GROUP, 3, 4);
    for (int i = 0; i < 12; i++) {
        close_to(advantages[i], group[i], 1e-11);
    }
    close_to(stds[0], 0.42695628191498325, 1e-15);
    assert_true(stds[1] == 0);
    advantage_compute(advantages, NULL, rewards, SCALE_BATCH, BASELINE_GROUP, 3, 4);
    for (int i = 0; i < 12; i++) {
        close_to(advantages[i], batch[i], 1e-11);
    }
    advantage_compute(advantages, NULL, rewards, SCALE_NONE, BASELINE_GROUP, 3, 4);
    close_to(advantages[0], 0.5625, 0);
    close_to(advantages[11], 0.6, 1e-15);
}

/* 0.1 + 0.1 + 0.1 rounds, so a mean taken naively is not 0.1. */
/* As if the group were smaller. */
static void a_reward_that_is_not_there_counts_nowhere(void **state)
{
    (void)state;
    const double rewards[] = {0.31, NAN, -1.27, 2.385}, there[] = {0.31, -1.27, 2.385};
    const double lonely[] = {NAN, 3, NAN, NAN, NAN, 1, NAN, 1, NAN};
    for (AdvantageScale scale = SCALE_GROUP; scale <= SCALE_NONE; scale++) {
        for (AdvantageBaseline b = BASELINE_GROUP; b <= BASELINE_LEAVE_ONE_OUT; b++) {
            double a[9], expected[3], std, expected_std, stds[3];
            advantage_compute(a, &std, rewards, scale, b, 1, 4);
            advantage_compute(expected, &expected_std, there, scale, b, 1, 3);
            assert_true(a[0] == expected[0] && a[1] == 0 && a[2] == expected[1] &&
                        a[3] == expected[2] && std == expected_std);
            advantage_compute(a, stds, lonely, scale, b, 3, 3);
            for (int i = 0; i < 9; i++) {
                assert_true(a[i] == 0);
            }
            assert_true(stds[0] == 0 && stds[1] == 0 && stds[2] == 0);
        }
    }
    assert_true(advantage_no_spread(lonely, 3) && advantage_no_spread(lonely + 6, 3));
    assert_false(advantage_no_spread(rewards, 4));
}

static void equal_rewards_have_advantages_of_exactly_zero(void **state)
{
    (void)state;
    const double rewards[3] = {0.1, 0.1, 0.1}, alone[1] = {0.7};
    double advantages[3], stds[1];
    advantage_compute(advantages, stds, rewards, SCALE_NONE, BASELINE_GROUP, 1, 3);
    assert_true(advantages[0] == 0 && advantages[1] == 0 && advantages[2] == 0 && stds[0] == 0);
    advantage_compute(advantages, stds, alone, SCALE_GROUP, BASELINE_GROUP, 1, 1);
    assert_true(advantages[0] == 0);
}

/* RLOO: each reward against the mean of the others. */
static void leave_one_out_compares_with_the_others_of_the_group(void **state)
{
    (void)state;
    const double rewards[8] = {1, 0, 0.5, 0.25, 0.3, 0.3, 0.3, 0.3};
    double advantages[8];
    advantage_compute(advantages, NULL, rewards, SCALE_NONE, BASELINE_LEAVE_ONE_OUT, 2, 4);
    close_to(advantages[0], 1 - (0 + 0.5 + 0.25) / 3, 1e-15);
    close_to(advantages[1], 0 - (1 + 0.5 + 0.25) / 3, 1e-15);
    close_to(advantages[3], 0.25 - (1 + 0 + 0.5) / 3, 1e-15);
    assert_true(advantages[4] == 0 && advantages[7] == 0);
    AdvantageBaseline baseline;
    assert_true(advantage_baseline_find(&baseline, "leave_one_out") &&
                baseline == BASELINE_LEAVE_ONE_OUT);
    assert_false(advantage_baseline_find(&baseline, "rloo"));
}

static void overlong_completions_lose_reward_softly(void **state)
{
    (void)state;
    assert_true(overlong_penalty(80, 100, 20, 1) == 0 && overlong_penalty(3, 100, 20, 1) == 0);
    close_to(overlong_penalty(90, 100, 20, 1), -0.5, 0);
    close_to(overlong_penalty(100, 100, 20, 0.7), -0.7, 0);
    assert_true(overlong_penalty(100, 100, 0, 1) == 0);
}

typedef struct {
    LossFormula formula;
    Correction correction;
    double low, high; /* of the correction */
} Case;

/* The program's loss of the data and its derivatives, put together as grpo.c does. */
static double program_loss(LossData *data, const Case *c, LossRows dlogprob, LossRows dentropy)
{
    const Loss *loss = loss_find(c->formula.name);
    Objective objective = {c->formula.clip_low, c->formula.clip_high, c->formula.delta,
                           c->formula.kl_beta, c->formula.sequence || loss->sequence_ratios};
    LossBatch batch = {.n_completions = data->n, .n_minibatches = 1, .max_new_tokens = data->limit};
    for (int i = 0; i < data->n; i++) {
        batch.n_tokens += data->masked[i] ? 0 : data->length[i];
    }
    batch.step_tokens = batch.n_tokens;
    double value = 0;
    for (int i = 0; i < data->n; i++) {
        int n = data->length[i];
        double ratio = 0, mean = 0;
        for (int t = 0; t < n; t++) {
            ratio += (data->logprob[i][t] - data->old[i][t]) / n;
            mean += data->correction[i][t] / n;
            dlogprob[i][t] = dentropy[i][t] = 0;
        }
        for (int t = 0; t < n && !data->masked[i]; t++) {
            TokenState state = {data->advantage[i],
                                data->logprob[i][t],
                                objective.sequence_ratios ? ratio
                                                          : data->logprob[i][t] - data->old[i][t],
                                data->base[i][t],
                                data->correction[i][t],
                                mean};
            TokenLoss token = objective_token(loss, &objective, &state);
            dlogprob[i][t] = loss->weight(&batch, n) * token.dlogprob;
            dentropy[i][t] = -c->formula.entropy_coef / (double)batch.n_tokens;
            value += loss->weight(&batch, n) * token.loss + dentropy[i][t] * data->entropy[i][t];
        }
    }
    return value;
}

/* Ratios far from 1 on both sides, a truncated completion, a group of zero spread. */
static void draw_data(LossData *data, uint32_t draw)
{
    RandomKey key = {20261128, RANDOM_DATA};
    *data = (LossData){.n = 8, .limit = 9};
    for (int i = 0; i < data->n; i++) {
        uint32_t at = draw * 100 + (uint32_t)i;
        data->length[i] = i == 2 ? 9 : 1 + (int)(9 * random_uniform(key, at, 0, 0, 0));
        data->advantage[i] = i < 4 ? random_normal(key, at, 1, 0, 0) : 0;
        double drift = 0.5 * random_normal(key, at, 2, 0, 0);
        for (int t = 0; t < data->length[i]; t++) {
            uint32_t u = (uint32_t)t;
            data->logprob[i][t] = -3 * random_uniform(key, at, 3, u, 0);
            data->old[i][t] = data->logprob[i][t] - drift + 0.3 * random_normal(key, at, 4, u, 0);
            data->base[i][t] = data->logprob[i][t] + random_normal(key, at, 5, u, 0);
            data->correction[i][t] = 1;
            data->entropy[i][t] = 2 * random_uniform(key, at, 6, u, 0);
        }
    }
}

static bool near_a_kink(LossData *data, const Case *c, int i)
{
    for (int t = 0; t < data->length[i]; t++) {
        double r = loss_ratio(data, &data->logprob, i, t,
                              c->formula.sequence || !strcmp(c->formula.name, "gspo"));
        if (fabs(r - 1 + c->formula.clip_low) < 1e-3 || fabs(r - 1 - c->formula.clip_high) < 1e-3 ||
            fabs(r - c->formula.delta) < 1e-3) {
            return true;
        }
    }
    return false;
}

/* n_clipped: gradients that are 0 although the advantage is not. */
static void check_case(LossData *data, const Case *c, int *n_clipped)
{
    static LossRows dlogprob, dentropy, held;
    const double h = 1e-6;
    close_to(program_loss(data, c, dlogprob, dentropy), reference_loss(data, &c->formula), 1e-12);
    memcpy(held, data->logprob, sizeof held);
    data->held = &held;
    for (int i = 0; i < data->n; i++) {
        for (int t = 0; t < data->length[i] && !near_a_kink(data, c, i); t++) {
            double *at[2] = {&data->logprob[i][t], &data->entropy[i][t]};
            double got[2] = {dlogprob[i][t], dentropy[i][t]};
            for (int k = 0; k < 2; k++) {
                double was = *at[k];
                *at[k] = was + h;
                double up = reference_loss(data, &c->formula);
                *at[k] = was - h;
                double difference = (up - reference_loss(data, &c->formula)) / (2 * h);
                *at[k] = was;
                close_to(got[k], difference, 1e-8); /* 1e-16 / h and h^2 */
            }
            *n_clipped += data->advantage[i] != 0 && !data->masked[i] && dlogprob[i][t] == 0;
        }
    }
    data->held = NULL;
}

static void every_loss_and_its_gradient_match_the_formula(void **state)
{
    (void)state;
    static LossData data;
    const double deltas[] = {0, 1.3}, betas[] = {0, 0.04}, coefs[] = {0, 0.01};
    for (int k = 0; k < n_losses; k++) {
        int n_clipped = 0;
        for (uint32_t variant = 0; variant < 64; variant++) {
            Case c = {.formula = {losses[k]->name, variant & 1, 0.2, 0.28, deltas[variant >> 1 & 1],
                                  betas[variant >> 2 & 1], coefs[variant >> 3 & 1]}};
            draw_data(&data, variant);
            data.masked[2] = variant >> 4 & 1;
            for (int i = 0; i < data.n && variant >> 5 & 1; i++) {
                for (int t = 0; t < data.length[i]; t++) {
                    data.correction[i][t] = 0.5 * t; /* 0, too */
                }
            }
            check_case(&data, &c, &n_clipped);
        }
        bool clips = losses[k]->policy == loss_find("grpo")->policy;
        assert_true(clips ? n_clipped > 100 : n_clipped < 100);
    }
    assert_int_equal(n_losses, 7);
    assert_null(loss_find("ppo"));
}

static void clipping_binds_where_the_formula_says_so(void **state)
{
    (void)state;
    Objective o = {.clip_low = 0.2, .clip_high = 0.28, .delta = 1.5};
    const Loss *loss = loss_find("dapo");
    const struct {
        double advantage, ratio;
        bool low, high, moves;
    } cases[] = {{1, 1.29, false, true, false},  {1, 1.27, false, false, true},
                 {1, 0.1, false, false, true},   {-1, 0.79, true, false, false},
                 {-1, 0.81, false, false, true}, {-1, 1.49, false, false, true},
                 {-1, 1.51, false, false, false}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        TokenState at = {.advantage = cases[i].advantage,
                         .logprob = -1,
                         .log_ratio = log(cases[i].ratio),
                         .correction = 1,
                         .correction_mean = 1};
        TokenLoss token = objective_token(loss, &o, &at);
        assert_int_equal(token.clipped_low, cases[i].low);
        assert_int_equal(token.clipped_high, cases[i].high);
        assert_int_equal(token.dlogprob != 0, cases[i].moves);
    }
}

static void on_policy_the_ratio_is_one_and_nothing_is_clipped(void **state)
{
    (void)state;
    Objective objective = {.clip_low = 0, .clip_high = 0, .kl_beta = 0.1};
    TokenState at = {
        .advantage = 0.7, .logprob = -1.3, .base = -1.3, .correction = 1, .correction_mean = 1};
    const Loss *loss = loss_find("grpo");
    TokenLoss token = objective_token(loss, &objective, &at);
    assert_true(token.ratio == 1 && !token.clipped_low && !token.clipped_high && token.kl == 0);
    assert_true(token.loss == -0.7 && token.dlogprob == -0.7);
    objective.kl_beta = 0; /* then the base is not looked at */
    at.base = NAN;
    token = objective_token(loss, &objective, &at);
    assert_true(token.loss == -0.7);
}

static void losses_differ_in_their_normaliser(void **state)
{
    (void)state;
    LossBatch batch = {4, 50, 120, 2, 16};
    close_to(loss_find("grpo")->weight(&batch, 10), 1.0 / 40, 1e-17);
    close_to(loss_find("gspo")->weight(&batch, 10), 1.0 / 40, 1e-17);
    close_to(loss_find("dr_grpo")->weight(&batch, 10), 1.0 / 64, 1e-17);
    close_to(loss_find("bnpo")->weight(&batch, 10), 1.0 / 50, 1e-17);
    close_to(loss_find("dapo")->weight(&batch, 10), 2.0 / 120, 1e-17);
    close_to(loss_find("cispo")->weight(&batch, 10), 2.0 / 120, 1e-17);
    close_to(loss_find("reinforce")->weight(&batch, 10), 1.0 / 4, 1e-17);
    AdvantageScale scale;
    assert_true(advantage_scale_find(&scale, "batch") && scale == SCALE_BATCH);
    assert_false(advantage_scale_find(&scale, "all"));
    assert_string_equal(advantage_scale_name(SCALE_NONE), "none");
}

static void corrections_are_truncated_or_masked_by_token_or_sequence(void **state)
{
    (void)state;
    const double sampler[4] = {-1, -1, -1, -1};
    const double trainer[4] = {-1 + log(2.0), -1 + log(0.25), -1 + log(1.5), -1};
    const double expected[5][4] = {{1, 1, 1, 1},
                                   {1.6, 0.5, 1.5, 1},
                                   {0, 0, 1.5, 1},
                                   {0.75, 0.75, 0.75, 0.75}, /* 2 x 1/4 x 3/2 */
                                   {0.75, 0.75, 0.75, 0.75}};
    double out[4];
    for (int c = 0; correction_names[c]; c++) {
        Correction correction;
        assert_true(correction_find(&correction, correction_names[c]));
        double mean = correction_compute(out, trainer, sampler, 4, correction, 0.5, 1.6), sum = 0;
        for (int t = 0; t < 4; t++) {
            close_to(out[t], expected[c][t], 1e-15);
            sum += out[t];
        }
        close_to(mean, sum / 4, 1e-15);
    }
    correction_compute(out, trainer, sampler, 4, CORRECTION_SEQUENCE_MASK, 0.8, 3);
    assert_true(out[0] == 0 && out[3] == 0);
    correction_compute(out, trainer, sampler, 4, CORRECTION_SEQUENCE_TRUNCATE, 0.8, 3);
    assert_true(out[0] == 0.8 && out[3] == 0.8);
    Correction none;
    assert_false(correction_find(&none, "token"));
}

static double number(const Json *value)
{
    double x = NAN;
    assert_true(json_double(value, &x));
    return x;
}

static void read_rows(LossRows rows, const Json *value)
{
    for (size_t i = 0; i < json_size(value); i++) {
        for (size_t t = 0; t < json_size(json_at(value, i)); t++) {
            rows[i][t] = number(json_at(json_at(value, i), t));
        }
    }
}

/* TRL has no gspo and no reinforce of its own name; gspo is its grpo of sequences. */
static void check_golden(LossData *data, LossRows sampler, const Json *golden)
{
    static LossRows dlogprob, dentropy, expected_dlogprob, expected_dentropy;
    bool mask;
    assert_true(json_bool(json_get(golden, "mask_truncated"), &mask));
    Case c = {.formula = {json_string(json_get(golden, "loss"), NULL),
                          !strcmp(json_string(json_get(golden, "level"), NULL), "sequence"),
                          number(json_get(golden, "clip_low")),
                          number(json_get(golden, "clip_high")), number(json_get(golden, "delta")),
                          number(json_get(golden, "kl_beta")),
                          number(json_get(golden, "entropy_coef"))}};
    assert_true(correction_find(&c.correction, json_string(json_get(golden, "correction"), NULL)));
    for (int i = 0; i < data->n; i++) {
        data->masked[i] = mask && data->length[i] == data->limit;
        correction_compute(data->correction[i], data->old[i], sampler[i], data->length[i],
                           c.correction, number(json_get(golden, "clip_min")),
                           number(json_get(golden, "clip_max")));
    }
    double expected = number(json_get(golden, "value"));
    close_to(program_loss(data, &c, dlogprob, dentropy), expected, 1e-12);
    close_to(reference_loss(data, &c.formula), expected, 1e-12);
    read_rows(expected_dlogprob, json_get(golden, "dlogprobs"));
    read_rows(expected_dentropy, json_get(golden, "dentropies"));
    for (int i = 0; i < data->n; i++) {
        for (int t = 0; t < data->length[i]; t++) {
            close_to(dlogprob[i][t], expected_dlogprob[i][t], 1e-11); /* printed digits */
            close_to(dentropy[i][t], expected_dentropy[i][t], 1e-11);
        }
    }
    if (!strcmp(c.formula.name, "grpo") && c.formula.sequence) {
        c.formula.name = "gspo";
        close_to(program_loss(data, &c, dlogprob, dentropy), expected, 1e-12);
    }
}

static void losses_and_gradients_are_those_of_trl(void **state)
{
    (void)state;
    static LossData data;
    static LossRows sampler;
    Error error;
    JsonDocument *document;
    if (json_read(&document, SOURCE_DIR "/tests/data/trl/golden.json", 1 << 20, &error)) {
        fail_msg("%s", error.message);
    }
    const Json *root = json_root(document), *cases = json_get(root, "cases");
    data.limit = (int)number(json_get(root, "limit"));
    data.n = (int)json_size(json_get(root, "lengths"));
    for (int i = 0; i < data.n; i++) {
        data.length[i] = (int)number(json_at(json_get(root, "lengths"), (size_t)i));
        data.advantage[i] = number(json_at(json_get(root, "advantages"), (size_t)i));
        close_to(overlong_penalty(data.length[i], data.limit, 4, 1),
                 number(json_at(json_get(root, "overlong"), (size_t)i)), 0);
    }
    read_rows(data.logprob, json_get(root, "logprobs"));
    read_rows(data.old, json_get(root, "old"));
    read_rows(data.base, json_get(root, "base"));
    read_rows(data.entropy, json_get(root, "entropies"));
    read_rows(sampler, json_get(root, "sampler"));
    for (size_t i = 0; i < json_size(cases); i++) {
        check_golden(&data, sampler, json_at(cases, i));
    }
    assert_true(json_size(cases) > 70);
    json_free(document);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(advantages_are_those_of_the_formula),
        cmocka_unit_test(a_reward_that_is_not_there_counts_nowhere),
        cmocka_unit_test(equal_rewards_have_advantages_of_exactly_zero),
        cmocka_unit_test(leave_one_out_compares_with_the_others_of_the_group),
        cmocka_unit_test(overlong_completions_lose_reward_softly),
        cmocka_unit_test(every_loss_and_its_gradient_match_the_formula),
        cmocka_unit_test(clipping_binds_where_the_formula_says_so),
        cmocka_unit_test(on_policy_the_ratio_is_one_and_nothing_is_clipped),
        cmocka_unit_test(losses_differ_in_their_normaliser),
        cmocka_unit_test(corrections_are_truncated_or_masked_by_token_or_sequence),
        cmocka_unit_test(losses_and_gradients_are_those_of_trl),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
