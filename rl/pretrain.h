/* Full-parameter training of a small model from nothing: how the models of models/ were made. A
 * recipe names a shape and a corpus; the result is a pure function of the two (and of the kernels'
 * family). Not for training a model that exists: that is sft and grpo with the method "full". */
#pragma once
#include <stdint.h>

#include "core/status.h"

typedef struct {
    int64_t step, steps; /* the step just done, of how many */
    int64_t n_tokens;    /* seen so far */
    double loss;         /* weighted mean negative log-likelihood of the step's tokens, nats */
    double gradient_norm;
    double rate; /* learning rate of the step */
} PretrainProgress;

/* Called after each step; nonzero stops. */
typedef int (*PretrainReport)(void *context, const PretrainProgress *progress);

/* recipe_path: a JSON object; paths in it are relative to its folder:
 *   "config"       config.json of the model to make (shape, dtype, end-of-sequence token)
 *   "tokenizer"    its tokenizer.json; trained on the corpus and written there if it does not exist
 *   "corpus"       JSON Lines of pages, {"page": ["question", "answer", "question", ...]}. Each
 * page is one sequence; every answer is followed by the end-of-sequence token. "output"       model
 * directory, written whole at the end "seed", "steps", "batch_tokens" (pages are added until a
 * batch has that many), "lr", "warmup_steps" (cosine to 0 after them), "weight_decay" (matrices
 * only), "beta2", "grad_clip", "init_std" (of matrices; o_proj and down_proj are divided by sqrt(2
 * layers)), "question_weight" (of the loss on question tokens; answers have 1) All are required, no
 * other is allowed. Every 100 steps and when report stops it, the state is saved in the output
 * directory under a hash of recipe, config and corpus; a later call goes on there and ends with the
 * same bits. report: may be NULL. Errors: STATUS_USAGE (recipe), STATUS_REFUSED (corpus, config,
 * tokenizer; names the line), STATUS_FAILED (also when the loss is not finite: names the step),
 * STATUS_STOPPED. */
Status pretrain_run(const char *recipe_path, int n_threads, PretrainReport report, void *context,
                    Error *error);
