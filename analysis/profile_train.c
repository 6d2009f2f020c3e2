/* Training steps on pseudo-random rows, by the one way in which the program trains. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "analysis/profile.h"

enum { PROMPT = 1 };

/* Rows of one prompt token; all others are learned. */
static Status make_task(Task *task, const Model *model, const TrainProfile *profile, Error *error)
{
    size_t n = (size_t)profile->sequences, length = (size_t)profile->n_tokens;
    *task = (Task){.model = model,
                   .n_rows = profile->sequences,
                   .prompts = calloc(n, sizeof *task->prompts),
                   .answers = calloc(n, sizeof *task->answers),
                   .n_answer = calloc(n, sizeof *task->n_answer)};
    int32_t *tokens = malloc(n * length * sizeof *tokens);
    if (!task->prompts || !task->answers || !task->n_answer || !tokens) {
        free(tokens);
        return error_set(error, STATUS_FAILED, "no memory for %zu rows of %zu tokens", n, length);
    }
    for (size_t i = 0; i < n; i++, tokens += length) {
        profile_tokens(tokens, profile->n_tokens, model->config.vocab_size, (int)i);
        task->prompts[i] = (Prompt){.ids = tokens, .n = PROMPT};
        task->answers[i] = tokens + PROMPT;
        task->n_answer[i] = profile->n_tokens - PROMPT;
    }
    return STATUS_OK; /* NOLINT(clang-analyzer-unix.Malloc): the first prompt has them */
}

static void release_task(Task *task)
{
    if (task->prompts) {
        free(task->prompts[0].ids);
    }
    free(task->prompts);
    free(task->answers);
    free(task->n_answer);
}

static double metric(const StepResult *result, const char *key)
{
    for (size_t i = 0; i < result->n_metrics; i++) {
        if (strcmp(result->metrics[i].key, key) == 0) {
            return result->metrics[i].value;
        }
    }
    return 0.0 / 0.0;
}

/* AdamW's first moments are then a tenth of it. */
static void take_gradient(TrainMeasures *measures, const Learner *learner, const StepResult *result)
{
    size_t stride = (learner->n + PROFILE_SKETCH - 1) / PROFILE_SKETCH;
    measures->grad_norm = metric(result, "grad_norm");
    sha256_bytes(measures->gradient_sha256, learner->moments, learner->n * sizeof(float));
    measures->n_sketch = 0;
    for (size_t i = 0; i < learner->n; i += stride) {
        measures->sketch[measures->n_sketch++] = learner->moments[i];
    }
}

double profile_gradient_distance(const TrainMeasures *a, const TrainMeasures *b)
{
    double difference = 0, size = 0;
    for (size_t i = 0; i < b->n_sketch; i++) {
        double gap = (double)a->sketch[i] - (double)b->sketch[i];
        difference += gap * gap;
        size += (double)b->sketch[i] * (double)b->sketch[i];
    }
    return size > 0 ? sqrt(difference / size) : 0;
}

/* The first step touches all memory. */
static Status measure(TrainMeasures *measures, const Trainer *trainer, Learner *learner, int steps,
                      double (*now_s)(void), Error *error)
{
    Status status = STATUS_OK;
    for (int step = 0; step <= steps && !status; step++) {
        StepResult result;
        double start = now_s();
        status = learner_step(trainer, &learner, 1, &result, error);
        double took = now_s() - start;
        if (status) {
            break;
        }
        if (result.status) {
            status = error_set(error, result.status, "%s", result.error.message);
        } else if (step == 0) {
            measures->loss = metric(&result, "loss");
        } else {
            measures->seconds = step == 1 || took < measures->seconds ? took : measures->seconds;
        }
        if (!status && !measures->n_sketch && learner->updates == 1) {
            take_gradient(measures, learner, &result);
        }
        step_result_release(&result);
    }
    return status;
}

Status profile_train(TrainMeasures *measures, Engine *engine, AdapterBank *bank,
                     const TrainProfile *profile, double (*now_s)(void), Error *error)
{
    const Model *model = engine_model(engine);
    if (profile->n_tokens > model->config.max_positions) {
        return error_set(error, STATUS_USAGE, "rows of %d tokens: the model's context is %d",
                         profile->n_tokens, model->config.max_positions);
    }
    Trainer trainer = {.engine = engine, .bank = bank};
    TrainSettings settings = train_settings_defaults();
    Learner *learner = NULL;
    Task task;
    settings.method = METHOD_SFT;
    settings.seed = 1;
    settings.steps = profile->steps + 1;
    settings.sft.batch_size = profile->sequences;
    settings.micro_batch = profile->micro_batch;
    settings.checkpointing = profile->checkpointing;
    settings.precision = profile->precision;
    settings.grad_clip = 0;
    *measures = (TrainMeasures){0};
    Status status = make_task(&task, model, profile, error);
    status = status ? status : learner_new(&learner, &settings, &task, NULL, bank, error);
    status = status ? status : measure(measures, &trainer, learner, profile->steps, now_s, error);
    measures->parameters = adapter_parameters(bank);
    learner_free(learner);
    release_task(&task);
    return status;
}
