/* The regular expressions of the harnesses as hand-written linear scanners over bytes; the
 * expression stands above each function. Nothing here judges: conventions are kept as they are,
 * mistakes included. */
#include "rl/extract.h"

#include <string.h>

#include "rl/latex.h"

typedef struct {
    const char *at;
    size_t n; /* 0 with at NULL: nothing found */
} Span;

static bool in_set(char c, const char *set)
{
    return c && strchr(set, c);
}

static size_t run_of(const char *at, const char *end, const char *set)
{
    size_t n = 0;
    while (at + n < end && in_set(at[n], set)) {
        n++;
    }
    return n;
}

#define NUMBER "0123456789.,"

/* re.findall("#### (\-?[0-9\.\,]+)"): the first or the last one's group. */
static Span marked_number(const char *text, size_t n, bool last)
{
    const char *end = text + n;
    Span found = {0};
    for (const char *at = text; at + 5 < end; at++) {
        if (memcmp(at, "#### ", 5) != 0) {
            continue;
        }
        const char *number = at + 5;
        size_t sign = *number == '-';
        size_t digits = run_of(number + sign, end, NUMBER);
        if (digits) {
            found = (Span){number, sign + digits};
            if (!last) {
                break;
            }
            at = number + sign + digits - 1;
        }
    }
    return found;
}

/* The text without the characters of set. */
static void append_without(Text *out, Span span, const char *set)
{
    for (size_t i = 0; i < span.n; i++) {
        if (!in_set(span.at[i], set)) {
            text_append(out, span.at + i, 1);
        }
    }
}

static bool read_span(Text *out, Span span)
{
    if (!span.at) {
        return false;
    }
    text_append(out, span.at, span.n);
    return true;
}

/* ---- lm-evaluation-harness, tasks/gsm8k/gsm8k.yaml 3.0 ---- */

static bool strict_read(Text *out, const char *completion, size_t n)
{
    return read_span(out, marked_number(completion, n, false));
}

/* re.findall("(-?[$0-9.,]{2,})|(-?[0-9]+)")[-1], its non-empty group */
static bool flexible_read(Text *out, const char *completion, size_t n)
{
    const char *end = completion + n;
    Span found = {0};
    for (const char *at = completion; at < end;) {
        size_t sign = *at == '-';
        size_t wide = run_of(at + sign, end, "$" NUMBER);
        size_t digits = run_of(at + sign, end, "0123456789");
        size_t length = wide >= 2 ? sign + wide : digits ? sign + digits : 0;
        if (length) {
            found = (Span){at, length};
        }
        at += length ? length : 1;
    }
    return read_span(out, found);
}

/* regexes_to_ignore "," "\$" "(?s).*#### " "\.$" in this order, then lower case (of ASCII). */
static void normalise(Text *out, const char *text, size_t n)
{
    append_without(out, (Span){text, n}, ",$");
    if (!out->n) {
        return;
    }
    for (size_t i = out->n; i >= 5; i--) {
        if (!memcmp(out->bytes + i - 5, "#### ", 5)) {
            memmove(out->bytes, out->bytes + i, out->n - i);
            out->n -= i;
            break;
        }
    }
    size_t end = out->n && out->bytes[out->n - 1] == '\n' ? out->n - 1 : out->n;
    if (out->n && out->bytes[out->n - 1] == '.') {
        out->n--;
    } else if (end < out->n && end &&
               out->bytes[end - 1] == '.') { /* "$" also before a last newline */
        out->bytes[end - 1] = '\n';
        out->n--;
    }
    for (size_t i = 0; i < out->n; i++) {
        if (out->bytes[i] >= 'A' && out->bytes[i] <= 'Z') {
            out->bytes[i] = (char)(out->bytes[i] + 'a' - 'A');
        }
    }
}

static bool equal_text(const Text *a, const Text *b)
{
    return a->n == b->n && (!a->n || !memcmp(a->bytes, b->bytes, a->n));
}

bool extract_exact_match(const char *prediction, size_t n, const char *answer, size_t n_answer)
{
    Text a = {0}, b = {0};
    normalise(&a, prediction, n);
    normalise(&b, answer, n_answer);
    bool equal = equal_text(&a, &b);
    text_release(&a);
    text_release(&b);
    return equal;
}

static bool harness_correct(bool (*read)(Text *, const char *, size_t), const char *completion,
                            size_t n, const char *answer, size_t n_answer)
{
    Text prediction = {0};
    bool correct = read(&prediction, completion, n) &&
                   extract_exact_match(prediction.bytes, prediction.n, answer, n_answer);
    text_release(&prediction);
    return correct;
}

static bool strict_correct(const char *completion, size_t n, const char *answer, size_t n_answer)
{
    return harness_correct(strict_read, completion, n, answer, n_answer);
}

static bool flexible_correct(const char *completion, size_t n, const char *answer, size_t n_answer)
{
    return harness_correct(flexible_read, completion, n, answer, n_answer);
}

/* ---- those that compare with the reference's number as text ---- */

/* extract_answer of grade-school-math on the reference; a reference without marker stands for
 * itself. */
static void append_reference(Text *out, const char *answer, size_t n_answer)
{
    Span number = marked_number(answer, n_answer, false);
    append_without(out, number.at ? number : (Span){answer, n_answer}, ",");
}

static bool text_correct(bool (*read)(Text *, const char *, size_t), const char *completion,
                         size_t n, const char *answer, size_t n_answer)
{
    Text prediction = {0}, reference = {0};
    append_reference(&reference, answer, n_answer);
    bool correct = read(&prediction, completion, n) && equal_text(&prediction, &reference);
    text_release(&prediction);
    text_release(&reference);
    return correct;
}

/* grade_school_math/dataset.py extract_answer */
static bool openai_read(Text *out, const char *completion, size_t n)
{
    Span number = marked_number(completion, n, false);
    append_without(out, number, ",");
    return number.at;
}

static bool openai_correct(const char *completion, size_t n, const char *answer, size_t n_answer)
{
    return text_correct(openai_read, completion, n, answer, n_answer);
}

/* solution_str[-300:], in characters */
static Span last_300(const char *text, size_t n)
{
    size_t start = n;
    for (int characters = 0; start && characters < 300; characters++) {
        start--;
        while (start && ((unsigned char)text[start] & 0xC0) == 0x80) {
            start--;
        }
    }
    return (Span){text + start, n - start};
}

/* verl/utils/reward_score/gsm8k.py, method "strict" */
static bool verl_strict_read(Text *out, const char *completion, size_t n)
{
    Span tail = last_300(completion, n);
    Span number = marked_number(tail.at, tail.n, true);
    append_without(out, number, ",$");
    return number.at;
}

static bool verl_strict_correct(const char *completion, size_t n, const char *answer,
                                size_t n_answer)
{
    return text_correct(verl_strict_read, completion, n, answer, n_answer);
}

/* method "flexible": the last of re.findall("(\-?[0-9\.\,]+)") that is not "."; nothing is deleted
 * from it */
static bool verl_flexible_read(Text *out, const char *completion, size_t n)
{
    Span tail = last_300(completion, n), found = {0};
    const char *end = tail.at + tail.n;
    for (const char *at = tail.at; at < end;) {
        size_t sign = *at == '-';
        size_t digits = run_of(at + sign, end, NUMBER);
        if (digits && (!found.at || sign + digits > 1 || *at != '.')) {
            found = (Span){at, sign + digits};
        }
        at += digits ? sign + digits : 1;
    }
    return read_span(out, found);
}

static bool verl_flexible_correct(const char *completion, size_t n, const char *answer,
                                  size_t n_answer)
{
    return text_correct(verl_flexible_read, completion, n, answer, n_answer);
}

/* ---- Hendrycks et al. 2021, as lm-evaluation-harness' hendrycks_math and verl's math.py have it
 * ----
 */

/* rfind: the last place of a word; n when it is not there. */
static size_t last_place(const char *text, size_t n, const char *word)
{
    size_t length = strlen(word);
    for (size_t at = n >= length ? n - length + 1 : 0; at-- > 0;) {
        if (!memcmp(text + at, word, length)) {
            return at;
        }
    }
    return n;
}

/* last_boxed_only_string and remove_boxed: "\boxed " and what follows up to a "$", else the braces
 * after the last "\boxed", balanced. Where remove_boxed would raise ("\fbox", "\boxed[") nothing is
 * read. */
static bool boxed_read(Text *out, const char *completion, size_t n)
{
    size_t at = last_place(completion, n, "\\boxed ");
    if (at < n) {
        const char *inside = completion + at + 7;
        size_t length = n - at - 7;
        const char *dollar = memchr(inside, '$', length);
        text_append(out, inside, dollar ? (size_t)(dollar - inside) : length);
        return true;
    }
    at = last_place(completion, n, "\\boxed");
    if (at + 6 >= n || completion[at + 6] != '{') {
        return false;
    }
    size_t inside = at + 7, depth = 1;
    for (size_t i = inside; i < n; i++) {
        depth += completion[i] == '{';
        depth -= completion[i] == '}';
        if (!depth) {
            text_append(out, completion + inside, i - inside);
            return true;
        }
    }
    return false;
}

/* A reference of GSM8K stands for its number, as everywhere here. */
static bool boxed_correct(const char *completion, size_t n, const char *answer, size_t n_answer)
{
    Text prediction = {0}, reference = {0};
    if (marked_number(answer, n_answer, false).at) {
        append_reference(&reference, answer, n_answer);
    } else {
        text_append(&reference, answer, n_answer);
    }
    bool correct =
        boxed_read(&prediction, completion, n) &&
        latex_equal(text_string(&prediction), prediction.n, text_string(&reference), reference.n);
    text_release(&prediction);
    text_release(&reference);
    return correct;
}

static const Extractor strict = {"strict", strict_read, strict_correct};
static const Extractor flexible = {"flexible", flexible_read, flexible_correct};
static const Extractor openai = {"openai", openai_read, openai_correct};
static const Extractor verl_strict = {"verl_strict", verl_strict_read, verl_strict_correct};
static const Extractor verl_flexible = {"verl_flexible", verl_flexible_read, verl_flexible_correct};
static const Extractor boxed = {"boxed", boxed_read, boxed_correct};

const Extractor *const extractors[] = {&strict,      &flexible,      &openai,
                                       &verl_strict, &verl_flexible, &boxed};
const int n_extractors = 6;

const char *extractor_alias(const char *name)
{
    return strcmp(name, "verl") == 0 ? verl_strict.name : name;
}

const Extractor *extractor_find(const char *name)
{
    name = extractor_alias(name);
    for (int i = 0; i < n_extractors; i++) {
        if (!strcmp(extractors[i]->name, name)) {
            return extractors[i];
        }
    }
    return NULL;
}

void extract_all_json(Text *out, const char *completion, size_t n)
{
    for (int i = 0; i < n_extractors; i++) {
        Text value = {0};
        text_printf(out, "%s\"%s\": ", i ? ", " : "{", extractors[i]->name);
        if (extractors[i]->read(&value, completion, n)) {
            text_json_string(out, text_string(&value), value.n);
        } else {
            text_add(out, "null");
        }
        text_release(&value);
    }
    text_add(out, "}");
}
