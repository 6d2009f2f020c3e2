/* Verifiable rewards: a completion's text and the row's answer to a number. Variants are const
 * structs found by name: exact_match (1 where an extractor calls it right), format (1 where an
 * extractor reads an answer at all), regex (POSIX extended, 1 where the completion matches), length
 * (minus the distance from a length in characters, as in TRL's documentation), leading_terms (share
 * of the answer's comma-separated terms that are right from the start), command (another process
 * says; reward_command.h), none (always 0). A list of them is a weighted sum. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "core/status.h"
#include "rl/reward_command.h"

typedef struct {
    const char *name;
    const char *extractor; /* exact_match and format; NULL: "strict" */
    const char *pattern;   /* regex only */
    double weight;         /* usually 1 */
    int length;            /* length only */
    const char *command;   /* command only, with its limit for a row and what it needs to wait */
    double limit_s;
    const RewardHost *host;
} RewardTerm;

typedef struct Reward Reward;

/* Copies what it needs. Errors: STATUS_USAGE for an unknown name or extractor, a missing or bad
 * pattern, a missing command. */
Status reward_new(Reward **reward, const RewardTerm *terms, int n_terms, Error *error);
void reward_free(Reward *reward);
int reward_size(const Reward *reward);
/* Unique in the list: a second "regex" is "regex_2". */
const char *reward_name(const Reward *reward, int term);

/* scores: (n) sum_i weight_i * value_i; NaN where a term has no value for the row. values: (n,
 * n_terms) unweighted; may be NULL. reasons: (n) emptied, then why there is no score. Rows are
 * asked together, and each has the numbers that it has alone. Errors: as reward_command_ask;
 * without a command there are none. */
Status reward_score(const Reward *reward, double *scores, double *values, Text *reasons,
                    const RewardRow *rows, int n, Error *error);
/* Names known, NULL-terminated, for messages. */
extern const char *const reward_names[];
