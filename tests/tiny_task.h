/* A tiny random model with a character tokenizer of its 37 tokens, and rows to train it on: what
 * the tests of rl/ run. */
#pragma once
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "rl/learner.h"
#include "tests/tiny_model.h"

static const char tiny_characters[] =
    "USE0123456789,:#+= abcdefghijklmnopqr"; /* U unknown, S, E special */

static inline void tiny_write(const char *path, const char *text)
{
    FILE *file = fopen(path, "wb");
    if (!file || fputs(text, file) < 0 || fclose(file)) {
        abort();
    }
}

static inline void tiny_tokenizer_write(const char *path)
{
    Text text = {0};
    text_add(&text,
             "{\"version\": \"1.0\", \"truncation\": null, \"padding\": null, \"added_tokens\": [");
    for (int id = 0; id < 3; id++) {
        text_printf(
            &text,
            "%s{\"id\": %d, \"content\": \"%c\", \"single_word\": false, \"lstrip\": false, "
            "\"rstrip\": false, \"normalized\": false, \"special\": true}",
            id ? ", " : "", id, tiny_characters[id]);
    }
    text_add(&text,
             "], \"normalizer\": null, \"pre_tokenizer\": null, \"post_processor\": null, "
             "\"decoder\": {\"type\": \"Fuse\"}, \"model\": {\"type\": \"BPE\", \"dropout\": null, "
             "\"unk_token\": \"U\", \"continuing_subword_prefix\": null, "
             "\"end_of_word_suffix\": null, \"fuse_unk\": false, \"byte_fallback\": false, "
             "\"ignore_merges\": false, \"vocab\": {");
    for (int id = 0; tiny_characters[id]; id++) {
        text_printf(&text, "%s\"%c\": %d", id ? ", " : "", tiny_characters[id], id);
    }
    text_add(&text, "}, \"merges\": []}}");
    tiny_write(path, text.bytes);
    text_release(&text);
}

static const char tiny_rows[] = "{\"question\": \"1+2=\", \"answer\": \"3\"}\n"
                                "{\"question\": \"abc: \", \"answer\": \"a,b,c\"}\n"
                                "{\"question\": \"7\", \"answer\": \"7,7,7,7,7,7\"}\n"
                                "{\"question\": \"\", \"answer\": \"hello\"}\n"
                                "{\"question\": \"no: 12,3\", \"answer\": \"\"}\n";

typedef struct {
    Model *model;
    Task *task;
    Reward *reward;
} TinyTask;

static inline TinyTask tiny_task_open(Architecture architecture, bool tied, uint64_t seed)
{
    ModelConfig config = tiny_config(architecture, tied);
    char directory[256], path[300];
    TinyTask tiny;
    Error error = {{0}};
    tiny_model_write(directory, &config, seed);
    snprintf(path, sizeof path, "%s/tokenizer.json", directory);
    tiny_tokenizer_write(path);
    tiny_require(model_open(&tiny.model, directory, 1, &error), &error);
    unlink(path);
    snprintf(path, sizeof path, "%s/rows.jsonl", directory);
    tiny_write(path, tiny_rows);
    tiny_require(
        task_open(&tiny.task, tiny.model, path, "question", "answer", "{question}S", 0, &error),
        &error);
    unlink(path);
    tiny_model_remove(directory);
    const RewardTerm terms[] = {{.name = "regex", .pattern = "[a-f]", .weight = 1},
                                {.name = "regex", .pattern = "^.{0,7}$", .weight = 0.5}};
    tiny_require(reward_new(&tiny.reward, terms, 2, &error), &error);
    return tiny;
}

static inline void tiny_task_close(TinyTask *tiny)
{
    reward_free(tiny->reward);
    task_close(tiny->task);
    model_free(tiny->model);
}

/* A machine of n adapters: 6 scalars (u = 2, 3 groups) of TinyLoRA over all layers, or another
 * method. */
static inline Trainer tiny_trainer(TinyTask *tiny, const char *method, int n, int n_threads)
{
    Trainer trainer = {0};
    Error error = {{0}};
    AdapterSpec spec = {.method = method,
                        .plan = {.rank = 2,
                                 .u = 2,
                                 .groups = 3,
                                 .tie = TIE_TILED,
                                 .n_modules = 2 * N_ROLES,
                                 .parameters = 6},
                        .targets = (1u << N_ROLES) - 1,
                        .seed = 13,
                        .scale = 1,
                        .dropout = strcmp(method, "lora") == 0 ? 0.2 : 0};
    tiny_require(
        adapter_bank_new(&trainer.bank, tiny->model, &spec, n, n_threads, NULL, NULL, NULL, &error),
        &error);
    tiny_require(engine_new(&trainer.engine, tiny->model, n_threads, 0, &error), &error);
    return trainer;
}

static inline void tiny_trainer_close(Trainer *trainer)
{
    engine_free(trainer->engine);
    adapter_bank_free(trainer->bank);
}

/* 3 x 4 completions of up to 12 tokens; the learning rate is large, so that the second update
 * clips. */
static inline TrainSettings tiny_settings(Method method)
{
    TrainSettings settings = train_settings_defaults();
    settings.method = method;
    settings.seed = 5;
    settings.steps = 10;
    settings.lr = 0.05;
    settings.sft.batch_size = 3;
    settings.grpo.prompts_per_step = 3;
    settings.grpo.group_size = 4;
    settings.grpo.sampling.max_new_tokens = 12;
    return settings;
}

/* v starts away from 0, so that the base and the policy differ. */
static inline Learner *tiny_learner(const TinyTask *tiny, const Trainer *trainer,
                                    const TrainSettings *settings)
{
    Learner *learner;
    Error error = {{0}};
    tiny_require(learner_new(&learner, settings, tiny->task, tiny->reward, trainer->bank, &error),
                 &error);
    for (size_t i = 0; i < learner->n && learner->n < 100; i++) {
        RandomKey key = {settings->seed, RANDOM_INIT};
        learner->v[i] += (float)(0.05 * random_normal(key, (uint32_t)i, 0, 0, 0));
    }
    return learner;
}

static inline double tiny_metric(const StepResult *result, const char *key)
{
    for (size_t i = 0; i < result->n_metrics; i++) {
        if (!strcmp(result->metrics[i].key, key)) {
            return result->metrics[i].value;
        }
    }
    fprintf(stderr, "no metric %s\n", key);
    abort();
}
