/* The problems of abacus: rows for training and evaluation, and the corpus it is pre-trained on.
 *   abacus_generate DIRECTORY        writes train.jsonl, dev.jsonl, test.jsonl, corpus.jsonl there
 * Everything is a function of one seed. The corpus knows two ways to answer: the careful one (a
 * line for each step, then "#### N", always right) and the hasty one ("#### N" at once, mostly
 * wrong), drawn anew for each answer. The rows' reference answers are in neither. */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/random.h"
#include "core/text.h"

enum { SEED = 20260213, MOST = 20, MAX_STEPS = 3, PROBLEMS_A_PAGE = 3, DRILLS_A_PAGE = 12 };
enum { N_TRAIN = 4000, N_DEV = 500, N_TEST = 2000, N_PAGES = 66000 };
#define SHARE_DRILLS 0.25      /* of pages */
#define SHARE_CAREFUL 0.30     /* of answers */
#define SHARE_HASTY_RIGHT 0.12 /* of hasty answers */

/* Numbers of one thing that is generated: (seed; kind, index) and a count of what was drawn. */
typedef struct {
    uint32_t kind, index, drawn;
} Draws;

static double draw(Draws *draws)
{
    RandomKey key = {SEED, RANDOM_DATA};
    return random_uniform(key, draws->kind, draws->index, draws->drawn++, 0);
}

static int draw_between(Draws *draws, int least, int most)
{
    return least + (int)(draw(draws) * (most - least + 1));
}

typedef struct {
    int before, by, after;
    char operator;
} Step;

typedef struct {
    Text question;
    Step steps[MAX_STEPS];
    int n_steps;
} Problem;

static const char *const names[] = {"Tom", "Ann", "Ben", "Eva", "Max",
                                    "Lea", "Sam", "Mia", "Leo", "Ida"};
static const char *const things[] = {"apples", "coins", "books", "cards", "shells",
                                     "stamps", "pens",  "beads", "nuts",  "eggs"};
static const char *const gains[] = {"gets", "finds", "buys", "picks"};
static const char *const losses[] = {"gives", "loses", "sells", "drops"};

#define PICK(draws, words) ((words)[draw_between(draws, 0, sizeof(words) / sizeof *(words)-1)])

static int answer(const Problem *problem)
{
    return problem->steps[problem->n_steps - 1].after;
}

/* All numbers from 1 to MOST, added or taken away at most 9. */
static Step draw_step(Draws *draws, int before, Text *question)
{
    double kind = draw(draws);
    if (kind < 0.12 && 2 * before <= MOST) {
        text_add(question, ", doubles");
        return (Step){before, 2, 2 * before, '*'};
    }
    if ((kind < 0.58 || before < 3) && before < MOST) {
        int by = draw_between(draws, 1, MOST - before < 9 ? MOST - before : 9);
        text_printf(question, ", %s %d", PICK(draws, gains), by);
        return (Step){before, by, before + by, '+'};
    }
    int by = draw_between(draws, 1, before - 1 < 9 ? before - 1 : 9);
    text_printf(question, ", %s %d", PICK(draws, losses), by);
    return (Step){before, by, before - by, '-'};
}

static void draw_problem(Problem *problem, Draws *draws)
{
    int n = draw_between(draws, 1, 9);
    text_clear(&problem->question);
    const char *name = PICK(draws, names);
    text_printf(&problem->question, "%s has %d %s", name, n, PICK(draws, things));
    problem->n_steps = draw_between(draws, 2, MAX_STEPS);
    for (int i = 0; i < problem->n_steps; i++) {
        problem->steps[i] = draw_step(draws, n, &problem->question);
        n = problem->steps[i].after;
    }
    text_add(&problem->question, ". How many?\n");
}

static void write_step(Text *out, const Step *step)
{
    text_printf(out, "%d%c%d=%d\n", step->before, step->operator, step->by, step->after);
}

static void write_careful(Text *out, const Problem *problem)
{
    for (int i = 0; i < problem->n_steps; i++) {
        write_step(out, &problem->steps[i]);
    }
    text_printf(out, "#### %d", answer(problem));
}

static void write_hasty(Text *out, const Problem *problem, Draws *draws)
{
    int right = answer(problem), said = right;
    if (draw(draws) >= SHARE_HASTY_RIGHT) {
        said = draw_between(draws, 1, MOST - 1);
        said += said >= right; /* any number but the right one */
    }
    text_printf(out, "#### %d", said);
}

static void write_reference(Text *out, const Problem *problem)
{
    text_printf(out, "%d", problem->steps[0].before);
    for (int i = 0; i < problem->n_steps; i++) {
        text_printf(out, " -> %d", problem->steps[i].after);
    }
    text_printf(out, "\n#### %d", answer(problem));
}

static void write_drill(Text *out, Draws *draws)
{
    Text unused = {0};
    for (int i = 0; i < DRILLS_A_PAGE; i++) {
        Step step = draw_step(draws, draw_between(draws, 1, MOST), &unused);
        write_step(out, &step);
    }
    text_release(&unused);
}

/* The questions of the rows, sorted: no row twice, and none in the corpus. */
typedef struct {
    char **questions;
    int n;
} Seen;

static int compare(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool is_seen(const Seen *seen, const Problem *problem)
{
    const char *question = problem->question.bytes;
    return bsearch(&question, seen->questions, (size_t)seen->n, sizeof question, compare) != NULL;
}

static void add_seen(Seen *seen, const Problem *problem)
{
    int place = seen->n++;
    for (; place > 0 && strcmp(seen->questions[place - 1], problem->question.bytes) > 0; place--) {
        seen->questions[place] = seen->questions[place - 1];
    }
    seen->questions[place] = strdup(problem->question.bytes);
    if (!seen->questions[place]) {
        abort();
    }
}

static void write_row(Text *out, Problem *problem)
{
    Text reference = {0};
    write_reference(&reference, problem);
    text_add(out, "{\"question\": ");
    text_json_string(out, problem->question.bytes, problem->question.n);
    text_add(out, ", \"answer\": ");
    text_json_string(out, reference.bytes, reference.n);
    text_add(out, "}\n");
    text_release(&reference);
}

static void write_page(Text *out, uint32_t index, const Seen *seen, Problem *problem)
{
    Draws draws = {.kind = 4, .index = index};
    Text said = {0};
    text_add(out, "{\"page\": [");
    if (draw(&draws) < SHARE_DRILLS) {
        write_drill(&said, &draws);
        text_add(out, "\"\", ");
        text_json_string(out, said.bytes, said.n);
    } else {
        for (int i = 0; i < PROBLEMS_A_PAGE; i++) {
            do {
                draw_problem(problem, &draws);
            } while (is_seen(seen, problem));
            text_clear(&said);
            if (draw(&draws) < SHARE_CAREFUL) {
                write_careful(&said, problem);
            } else {
                write_hasty(&said, problem, &draws);
            }
            text_add(out, i ? ", " : "");
            text_json_string(out, problem->question.bytes, problem->question.n);
            text_add(out, ", ");
            text_json_string(out, said.bytes, said.n);
        }
    }
    text_add(out, "]}\n");
    text_release(&said);
}

static Status write_file(const char *directory, const char *name, Text *text, Error *error)
{
    char path[FILE_PATH_MAX];
    Status status = path_join(path, directory, name, error);
    if (status == STATUS_OK) {
        status = file_write(path, text->bytes, text->n, error);
    }
    text_release(text);
    return status;
}

static Status generate(const char *directory, Seen *seen, Problem *problem, Error *error)
{
    static const char *const files[] = {"train.jsonl", "dev.jsonl", "test.jsonl"};
    static const int n_rows[] = {N_TRAIN, N_DEV, N_TEST};
    for (uint32_t kind = 0; kind < 3; kind++) {
        Text text = {0};
        Draws draws = {.kind = 1 + kind};
        for (int rows = 0; rows < n_rows[kind]; draws.index++) {
            draws.drawn = 0;
            draw_problem(problem, &draws);
            if (!is_seen(seen, problem)) {
                add_seen(seen, problem);
                write_row(&text, problem);
                rows++;
            }
        }
        Status status = write_file(directory, files[kind], &text, error);
        if (status != STATUS_OK) {
            return status;
        }
    }
    Text text = {0};
    for (uint32_t index = 0; index < N_PAGES; index++) {
        write_page(&text, index, seen, problem);
    }
    return write_file(directory, "corpus.jsonl", &text, error);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: abacus_generate DIRECTORY\n");
        return STATUS_USAGE;
    }
    Error error = {{0}};
    Problem problem = {.n_steps = 0};
    Seen seen = {calloc(N_TRAIN + N_DEV + N_TEST, sizeof(char *)), 0};
    Status status = seen.questions ? generate(argv[1], &seen, &problem, &error)
                                   : error_set(&error, STATUS_FAILED, "no memory");
    if (status != STATUS_OK) {
        fprintf(stderr, "abacus_generate: %s\n", error.message);
    }
    for (int i = 0; i < seen.n; i++) {
        free(seen.questions[i]);
    }
    free(seen.questions);
    text_release(&problem.question);
    return (int)status;
}
