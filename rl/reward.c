/* The rewards and their weighted sum. Regular expressions are the C library's POSIX extended ones,
 * compiled once; processes are in reward_command.c. */
#include "rl/reward.h"

#include <math.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rl/extract.h"

typedef struct Term Term;

typedef struct {
    const char *name;
    /* May be NULL. */
    Status (*prepare)(Term *term, const RewardTerm *from, Error *error);
    /* NULL: a command, which is asked all rows at once. */
    double (*score)(const Term *term, const char *completion, size_t n, const char *answer,
                    size_t n_answer);
} RewardKind;

struct Term {
    const RewardKind *kind;
    char name[40]; /* unique in its list */
    double weight;
    const Extractor *extractor;
    regex_t pattern;
    bool has_pattern;
    int length;
    RewardCommand *command; /* may be NULL */
};

struct Reward {
    Term *terms;
    int n_terms;
};

static Status extractor_prepare(Term *term, const RewardTerm *from, Error *error)
{
    const char *name = from->extractor ? from->extractor : "strict";
    term->extractor = extractor_find(name);
    return term->extractor
               ? STATUS_OK
               : error_set(error, STATUS_USAGE, "extractor \"%.60s\" is not known", name);
}

static double exact_match_score(const Term *term, const char *completion, size_t n,
                                const char *answer, size_t n_answer)
{
    return term->extractor->correct(completion, n, answer, n_answer) ? 1 : 0;
}

static double format_score(const Term *term, const char *completion, size_t n, const char *answer,
                           size_t n_answer)
{
    (void)answer, (void)n_answer;
    Text read = {0};
    bool found = term->extractor->read(&read, completion, n);
    text_release(&read);
    return found ? 1 : 0;
}

static Status regex_prepare(Term *term, const RewardTerm *from, Error *error)
{
    if (!from->pattern) {
        return error_set(error, STATUS_USAGE, "reward \"regex\" needs a pattern");
    }
    int code = regcomp(&term->pattern, from->pattern, REG_EXTENDED);
    if (code) {
        char reason[200];
        regerror(code, &term->pattern, reason, sizeof reason);
        return error_set(error, STATUS_USAGE, "pattern \"%.100s\": %s", from->pattern, reason);
    }
    term->has_pattern = true;
    return STATUS_OK;
}

static double regex_score(const Term *term, const char *completion, size_t n, const char *answer,
                          size_t n_answer)
{
    (void)answer, (void)n_answer;
    regmatch_t range = {.rm_so = 0, .rm_eo = (regoff_t)n};
    return regexec(&term->pattern, completion, 1, &range, REG_STARTEND) == 0 ? 1 : 0;
}

static Status length_prepare(Term *term, const RewardTerm *from, Error *error)
{
    term->length = from->length;
    return from->length >= 0 ? STATUS_OK
                             : error_set(error, STATUS_USAGE, "a length of %d", from->length);
}

static double length_score(const Term *term, const char *completion, size_t n, const char *answer,
                           size_t n_answer)
{
    (void)answer, (void)n_answer;
    double characters = 0;
    for (size_t i = 0; i < n; i++) {
        characters += ((unsigned char)completion[i] & 0xC0) != 0x80;
    }
    return 0 - fabs(characters - term->length); /* never -0 */
}

static Status command_prepare(Term *term, const RewardTerm *from, Error *error)
{
    if (!from->command || !*from->command) {
        return error_set(error, STATUS_USAGE, "reward \"command\" needs a command");
    }
    if (!from->host) {
        return error_set(error, STATUS_USAGE, "reward \"command\" cannot be used here");
    }
    term->command = reward_command_new(from->command, from->limit_s, from->host);
    return STATUS_OK;
}

/* Length of the term that starts at `at`. */
static size_t term_length(const char *text, size_t n, size_t at)
{
    const char *comma = memchr(text + at, ',', n - at);
    return comma ? (size_t)(comma - text) - at : n - at;
}

/* verl's digit completion: the answer's terms compared one by one with the completion's until the
 * first that differs; their number over the number of the answer's terms. Extra terms cost nothing.
 * Without an answer: 1 for an empty completion. */
static double leading_terms_score(const Term *term, const char *completion, size_t n,
                                  const char *answer, size_t n_answer)
{
    (void)term;
    if (!n_answer) {
        return n == 0 ? 1 : 0;
    }
    int right = 0, total = 0;
    bool alike = true;
    size_t at = 0;
    for (size_t start = 0; start <= n_answer; total++) {
        size_t length = term_length(answer, n_answer, start);
        alike = alike && at <= n && term_length(completion, n, at) == length &&
                !memcmp(completion + at, answer + start, length);
        right += alike;
        start += length + 1;
        at += length + 1;
    }
    return (double)right / total;
}

static double none_score(const Term *term, const char *completion, size_t n, const char *answer,
                         size_t n_answer)
{
    (void)term, (void)completion, (void)n, (void)answer, (void)n_answer;
    return 0;
}

static const RewardKind kinds[] = {
    {"exact_match", extractor_prepare, exact_match_score},
    {"format", extractor_prepare, format_score},
    {"regex", regex_prepare, regex_score},
    {"length", length_prepare, length_score},
    {"leading_terms", NULL, leading_terms_score},
    {"command", command_prepare, NULL},
    {"none", NULL, none_score},
};
const char *const reward_names[] = {"exact_match",   "format",  "regex", "length",
                                    "leading_terms", "command", "none",  NULL};

static Status prepare(Term *term, const RewardTerm *from, Error *error)
{
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (!strcmp(kinds[i].name, from->name)) {
            term->kind = &kinds[i];
            term->weight = from->weight;
            return kinds[i].prepare ? kinds[i].prepare(term, from, error) : STATUS_OK;
        }
    }
    return error_set(error, STATUS_USAGE,
                     "reward \"%.60s\" is not known (exact_match, format, regex, length, "
                     "leading_terms, command, none)",
                     from->name);
}

/* "regex", then "regex_2": metrics are kept by name. */
static void name_term(Reward *reward, int index)
{
    const RewardKind *kind = reward->terms[index].kind;
    char *name = reward->terms[index].name;
    int count = 1;
    for (int i = 0; i < index; i++) {
        count += reward->terms[i].kind == kind;
    }
    int n = snprintf(name, sizeof reward->terms[index].name, "%s", kind->name);
    if (count > 1) {
        snprintf(name + n, sizeof reward->terms[index].name - (size_t)n, "_%d", count);
    }
}

Status reward_new(Reward **reward, const RewardTerm *terms, int n_terms, Error *error)
{
    Reward *made = calloc(1, sizeof *made);
    Term *made_terms = calloc((size_t)n_terms + 1, sizeof *made_terms);
    if (!made || !made_terms) {
        abort();
    }
    made->terms = made_terms;
    made->n_terms = n_terms;
    Status status =
        n_terms > 0 ? STATUS_OK : error_set(error, STATUS_USAGE, "the list of rewards is empty");
    for (int i = 0; i < n_terms && !status; i++) {
        status = prepare(&made->terms[i], &terms[i], error);
        if (!status) {
            name_term(made, i);
        }
    }
    if (status) {
        reward_free(made);
    } else {
        *reward = made;
    }
    return status;
}

void reward_free(Reward *reward)
{
    if (!reward) {
        return;
    }
    for (int i = 0; i < reward->n_terms; i++) {
        if (reward->terms[i].has_pattern) {
            regfree(&reward->terms[i].pattern);
        }
        reward_command_free(reward->terms[i].command);
    }
    free(reward->terms);
    free(reward);
}

int reward_size(const Reward *reward)
{
    return reward->n_terms;
}

const char *reward_name(const Reward *reward, int term)
{
    return reward->terms[term].name;
}

static void score_rows(const Term *term, double *values, const RewardRow *rows, int n)
{
    for (int i = 0; i < n; i++) {
        values[i] = term->kind->score(term, rows[i].completion, rows[i].n_completion,
                                      rows[i].answer, rows[i].n_answer);
    }
}

/* Asks a command and adds its reasons, each with the name of the reward. */
static Status ask_command(const Term *term, double *values, Text *reasons, const RewardRow *rows,
                          int n, Error *error)
{
    Text *own = calloc((size_t)n + 1, sizeof *own);
    if (!own) {
        return error_set(error, STATUS_FAILED, "no memory for %d rewards", n);
    }
    Status status = reward_command_ask(term->command, values, own, rows, n, error);
    for (int i = 0; i < n; i++) {
        if (own[i].n) {
            text_printf(&reasons[i], "%s%s: %s", reasons[i].n ? "; " : "", term->name,
                        own[i].bytes);
        }
        text_release(&own[i]);
    }
    free(own);
    return status;
}

Status reward_score(const Reward *reward, double *scores, double *values, Text *reasons,
                    const RewardRow *rows, int n, Error *error)
{
    Status status = STATUS_OK;
    double *own = calloc((size_t)n + 1, sizeof *own);
    if (!own) {
        return error_set(error, STATUS_FAILED, "no memory for %d rewards", n);
    }
    for (int i = 0; i < n; i++) {
        scores[i] = 0;
        text_clear(&reasons[i]);
    }
    for (int k = 0; k < reward->n_terms && !status; k++) {
        const Term *term = &reward->terms[k];
        if (term->command) {
            status = ask_command(term, own, reasons, rows, n, error);
        } else {
            score_rows(term, own, rows, n);
        }
        for (int i = 0; i < n && !status; i++) {
            scores[i] += term->weight * own[i];
            if (values) {
                values[(size_t)i * (size_t)reward->n_terms + (size_t)k] = own[i];
            }
        }
    }
    free(own);
    return status;
}
