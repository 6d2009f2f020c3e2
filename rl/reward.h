/* Verifiable rewards: a completion's text and the row's answer to a number. Variants are const
 * structs found by name: exact_match (by an extractor), regex (POSIX extended, 1 where the
 * completion matches), leading_terms (share of the answer's comma-separated terms that are right
 * from the start), none (always 0). A list of them is a weighted sum. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "core/status.h"

typedef struct {
    const char *name;
    const char *extractor; /* exact_match only; NULL: "strict" */
    const char *pattern;   /* regex only */
    double weight;         /* usually 1 */
} RewardTerm;

typedef struct Reward Reward;

/* Copies what it needs. Errors: STATUS_USAGE for an unknown name or extractor, a missing or bad
 * pattern. */
Status reward_new(Reward **reward, const RewardTerm *terms, int n_terms, Error *error);
void reward_free(Reward *reward);
int reward_size(const Reward *reward);
/* Unique in the list: a second "regex" is "regex_2". */
const char *reward_name(const Reward *reward, int term);

/* sum_i weight_i * value_i. values: (n_terms) out, unweighted; may be NULL. */
double reward_score(const Reward *reward, double *values, const char *completion, size_t n,
                    const char *answer, size_t n_answer);
/* Names known, NULL-terminated, for messages. */
extern const char *const reward_names[];
