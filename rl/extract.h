/* What is read as "the answer" in a completion, by the conventions of several harnesses, exactly
 * (quirks included). The same output scores differently under each: every evaluation shows them
 * all. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "core/text.h"

typedef struct {
    const char *name;
    /* Append what is read from the completion to `out`; false when nothing was found (nothing
     * appended). */
    bool (*read)(Text *out, const char *completion, size_t n);
    /* Is the completion right, by this convention's own comparison with the reference answer? */
    bool (*correct)(const char *completion, size_t n, const char *answer, size_t n_answer);
} Extractor;

/* strict, flexible: lm-evaluation-harness gsm8k v3.0.  verl_strict, verl_flexible: verl's gsm8k.py.
 * openai: grade-school-math.  boxed: the last \boxed{...}, its braces balanced, compared as LaTeX
 * (latex.h): MATH's own rule (Hendrycks et al. 2021), which lm-evaluation-harness and verl share.
 * A reference without "####" is compared whole after the same normalisation. */
enum { EXTRACT_VERSION = 2 }; /* raised where an extractor reads or judges otherwise than before */
extern const Extractor *const extractors[];
extern const int n_extractors;
const Extractor *extractor_find(const char *name); /* or by its alias; NULL when unknown */
/* "verl" is verl_strict, verl's default; any other name stands for itself. */
const char *extractor_alias(const char *name);

/* lm-evaluation-harness' exact_match: both with "," "$" "(?s).*#### " and a trailing "." deleted,
 * lower-cased. */
bool extract_exact_match(const char *prediction, size_t n, const char *answer, size_t n_answer);

/* JSON object of what every extractor reads: {"strict": "18", "flexible": null, ...}. */
void extract_all_json(Text *out, const char *completion, size_t n);
