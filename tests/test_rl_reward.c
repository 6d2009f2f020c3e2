/* Rewards by hand-made cases, the weighted list, and every refusal. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "rl/reward.h"
#include "tests/reward_one.h"

static double score(RewardTerm term, const char *completion, const char *answer)
{
    Reward *reward;
    Error error;
    assert_int_equal(reward_new(&reward, &term, 1, &error), STATUS_OK);
    double value = reward_one(reward, NULL, completion, strlen(completion), answer, strlen(answer));
    reward_free(reward);
    return value;
}

static void exact_match_uses_the_named_extractor(void **state)
{
    (void)state;
    RewardTerm strict = {.name = "exact_match", .weight = 1};
    RewardTerm flexible = {.name = "exact_match", .extractor = "flexible", .weight = 1};
    assert_true(score(strict, "#### 5", "a #### 5") == 1);
    assert_true(score(strict, "it is 5", "a #### 5") == 0);
    assert_true(score(flexible, "it is 5", "a #### 5") == 1);
}

static void regex_is_one_where_the_completion_matches(void **state)
{
    (void)state;
    RewardTerm dog = {.name = "regex", .pattern = "(^|[^a-z])dogs?", .weight = 1};
    assert_true(score(dog, "the dog ran", "") == 1);
    assert_true(score(dog, "a hotdog", "") == 0);
    assert_true(score(dog, "", "") == 0);
    Reward *reward;
    Error error;
    assert_int_equal(reward_new(&reward, &dog, 1, &error), STATUS_OK);
    assert_true(reward_one(reward, NULL, "a\0 dog", 6, "", 0) == 1); /* NUL hides nothing */
    assert_true(reward_one(reward, NULL, "a dog", 3, "", 0) == 0);   /* n is the end */
    reward_free(reward);
}

static void format_is_one_where_an_answer_is_read_right_or_wrong(void **state)
{
    (void)state;
    RewardTerm strict = {.name = "format", .weight = 1};
    RewardTerm boxed = {.name = "format", .extractor = "boxed", .weight = 1};
    assert_true(score(strict, "so #### 5", "#### 6") == 1);
    assert_true(score(strict, "so 6", "#### 6") == 0);
    assert_true(score(boxed, "\\boxed{}", "#### 6") == 1);
    assert_true(score(boxed, "#### 6", "#### 6") == 0);
}

static void length_is_minus_the_distance_in_characters(void **state)
{
    (void)state;
    RewardTerm term = {.name = "length", .length = 4, .weight = 1};
    assert_true(score(term, "abcd", "") == 0 && !signbit(score(term, "abcd", "")));
    assert_true(score(term, "", "") == -4);
    assert_true(score(term, "abcdef", "") == -2);
    assert_true(score(term, "\xC3\xA9\xE2\x82\xAC", "") == -2); /* two characters, five bytes */
}

static void leading_terms_is_the_share_right_from_the_start(void **state)
{
    (void)state;
    RewardTerm term = {.name = "leading_terms", .weight = 1};
    assert_true(score(term, "7,2,6,1", "7,2,6,1") == 1);
    assert_true(score(term, "7,2,5,1", "7,2,6,1") == 0.5);
    assert_true(score(term, "7,2", "7,2,6,1") == 0.5);
    assert_true(score(term, "7,2,6,1,9,9", "7,2,6,1") == 1);
    assert_true(score(term, "70,2", "7,2") == 0);
    assert_true(score(term, "", "7,2") == 0);
    assert_true(score(term, "", "") == 1);
    assert_true(score(term, "3", "") == 0);
    assert_true(score(term, "3", "3") == 1);
}

static void a_list_is_a_weighted_sum(void **state)
{
    (void)state;
    const RewardTerm terms[] = {{.name = "regex", .pattern = "a", .weight = 0.25},
                                {.name = "none", .weight = 3},
                                {.name = "regex", .pattern = "b", .weight = -2}};
    Reward *reward;
    Error error;
    assert_int_equal(reward_new(&reward, terms, 3, &error), STATUS_OK);
    double values[3];
    assert_true(reward_one(reward, values, "ab", 2, "", 0) == -1.75);
    assert_true(values[0] == 1 && values[1] == 0 && values[2] == 1);
    assert_int_equal(reward_size(reward), 3);
    assert_string_equal(reward_name(reward, 0), "regex");
    assert_string_equal(reward_name(reward, 1), "none");
    assert_string_equal(reward_name(reward, 2), "regex_2");
    reward_free(reward);
}

static void refuses(RewardTerm term, int n, const char *expected)
{
    Reward *reward;
    Error error = {""};
    assert_int_equal(reward_new(&reward, &term, n, &error), STATUS_USAGE);
    if (!strstr(error.message, expected)) {
        fail_msg("\"%s\" does not say \"%s\"", error.message, expected);
    }
}

static void bad_rewards_are_refused(void **state)
{
    (void)state;
    refuses((RewardTerm){.name = "exact"}, 1,
            "reward \"exact\" is not known (exact_match, format, regex");
    refuses((RewardTerm){.name = "exact_match", .extractor = "lax"}, 1, "extractor \"lax\"");
    refuses((RewardTerm){.name = "regex"}, 1, "needs a pattern");
    refuses((RewardTerm){.name = "regex", .pattern = "a("}, 1, "pattern \"a(\": ");
    refuses((RewardTerm){.name = "none"}, 0, "empty");
    refuses((RewardTerm){.name = "length", .length = -1}, 1, "a length of -1");
    refuses((RewardTerm){.name = "format", .extractor = "lax"}, 1, "extractor \"lax\"");
    refuses((RewardTerm){.name = "command"}, 1, "needs a command");
    refuses((RewardTerm){.name = "command", .command = "true"}, 1, "cannot be used here");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exact_match_uses_the_named_extractor),
        cmocka_unit_test(regex_is_one_where_the_completion_matches),
        cmocka_unit_test(format_is_one_where_an_answer_is_read_right_or_wrong),
        cmocka_unit_test(length_is_minus_the_distance_in_characters),
        cmocka_unit_test(leading_terms_is_the_share_right_from_the_start),
        cmocka_unit_test(a_list_is_a_weighted_sum),
        cmocka_unit_test(bad_rewards_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
