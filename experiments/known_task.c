/* The table of known tasks. Prompts of word problems are lm-evaluation-harness' (gsm8k 3.0,
 * hendrycks_math). */
#include "experiments/known_task.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_FILES = 4 };

typedef struct {
    const char *name, *question, *answer, *template, *reward, *extractor;
    const char *train[MAX_FILES], *eval[MAX_FILES]; /* below the folder; the first that is there */
} KnownTask;

static const KnownTask tasks[] = {
    {"gsm8k",
     "question",
     "answer",
     "Question: {question}\nAnswer:",
     "exact_match",
     "flexible",
     {"gsm8k/train.jsonl", "train.jsonl"},
     {"gsm8k/test.jsonl", "test.jsonl"}},
    {"svamp",
     "{Body} {Question}",
     "{Answer}",
     "Question: {question}\nAnswer:",
     "exact_match",
     "flexible",
     {NULL},
     {"svamp_test.jsonl", "math/svamp_test.jsonl", "svamp/test.jsonl"}},
    {"multiarith",
     "input",
     "{target}",
     "Question: {question}\nAnswer:",
     "exact_match",
     "flexible",
     {NULL},
     {"mawps_multiarith.jsonl", "math/mawps_multiarith.jsonl", "multiarith/test.jsonl"}},
    {"math500",
     "problem",
     "answer",
     "Problem: {question}\nAnswer:",
     "exact_match",
     "boxed",
     {NULL},
     {"math_oai_test.jsonl", "math/math_oai_test.jsonl", "math500/test.jsonl"}},
    {"digit-completion",
     "question",
     "answer",
     "{question}S",
     "leading_terms",
     "strict",
     {"digit-completion/train.jsonl", "train.jsonl"},
     {"digit-completion/test.jsonl", "test.jsonl"}},
};

static bool is_file(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISREG(info.st_mode);
}

/* The first of the names in the folder. */
static Status find_file(char out[CONFIG_PATH], const KnownTask *task, const char *folder,
                        const char *const names[MAX_FILES], Error *error)
{
    if (!folder[0]) {
        return error_set(
            error, STATUS_USAGE,
            "data.task: where the files of \"%s\" lie is not said; give data.folder or "
            "$TINYLORA_DATA, or the files themselves",
            task->name);
    }
    for (int i = 0; i < MAX_FILES && names[i]; i++) {
        int n = snprintf(out, CONFIG_PATH, "%s/%s", folder, names[i]);
        if (n < CONFIG_PATH && is_file(out)) {
            return STATUS_OK;
        }
    }
    out[0] = 0;
    return error_set(error, STATUS_USAGE, "data.task: \"%s\": neither %s%s%s nor such is in \"%s\"",
                     task->name, names[0], names[1] ? ", " : "", names[1] ? names[1] : "", folder);
}

static const KnownTask *find_task(const char *name)
{
    for (size_t i = 0; i < sizeof tasks / sizeof *tasks; i++) {
        if (strcmp(tasks[i].name, name) == 0) {
            return &tasks[i];
        }
    }
    return NULL;
}

static void fill(RunSpec *spec, const char *path, const char *value, bool force)
{
    int reward;
    if (force || !*setting_given(spec, path)) {
        strcpy(setting_field(spec, setting_find(path, &reward), 0), value);
    }
}

static void fill_words(RunSpec *spec, const KnownTask *task, bool force)
{
    fill(spec, "data.question", task->question, force);
    fill(spec, "data.answer", task->answer, force);
    fill(spec, "data.template", task->template, force);
    if (force || (spec->n_rewards == 1 && !*setting_given(spec, "reward.name"))) {
        spec->n_rewards = 1;
        fill(spec, "reward.name", task->reward, force);
        fill(spec, "reward.extractor", task->extractor, force);
    }
}

Status known_task_settle(RunSpec *spec, Error *error)
{
    const KnownTask *task = find_task(spec->data.task);
    if (!task) {
        return STATUS_OK;
    }
    fill_words(spec, task, false);
    Status status = STATUS_OK;
    if (!spec->data.train[0] && task->train[0] && strcmp(spec->method, "import") != 0) {
        status = find_file(spec->data.train, task, spec->data.folder, task->train, error);
    }
    if (!status && !spec->data.eval[0] && !*setting_given(spec, "data.eval")) {
        status = find_file(spec->data.eval, task, spec->data.folder, task->eval, error);
    }
    return status;
}

Status known_task_use(RunSpec *spec, const char *name, const char *place, Error *error)
{
    const KnownTask *task = find_task(name);
    if (!task) {
        return error_set(error, STATUS_USAGE,
                         "--task: \"%.64s\" is not known (gsm8k, svamp, multiarith, math500, "
                         "digit-completion)",
                         name);
    }
    snprintf(spec->data.task, sizeof spec->data.task, "%s", name);
    fill_words(spec, task, true);
    if (is_file(place)) {
        snprintf(spec->data.eval, sizeof spec->data.eval, "%s", place);
        return STATUS_OK;
    }
    return find_file(spec->data.eval, task, place[0] ? place : spec->data.folder, task->eval,
                     error);
}
