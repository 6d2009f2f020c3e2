/* The table of settings, and what can be done to one of them. */
#include "experiments/settings.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/model_config.h"
#include "experiments/nearest.h"

#define FIELD(field) offsetof(RunSpec, field), sizeof((RunSpec *)0)->field
#define ALL_TARGETS                                                                                \
    "[\"q_proj\",\"k_proj\",\"v_proj\",\"o_proj\",\"gate_proj\",\"up_proj\",\"down_proj\"]"

static const double SEED_MAX = 9007199254740991.0;

/* clang-format off */
static const Setting table[] = {
    {"experiment", SETTING_TEXT, FIELD(experiment), "\"\"", 0, 0, NULL, SETTING_NO_NUMBERS, "name of the set of runs; \"\": the file's own"},
    {"model", SETTING_MODEL, FIELD(model), NULL, 0, 0, NULL, SETTING_NO_NUMBERS, "a model directory or the name of an embedded model"},
    {"method", SETTING_CHOICE, FIELD(method), "\"grpo\"", 0, 0, "sft|grpo|scan|import", 0, "how it is trained; scan: nothing is, a surface is measured; import: it was elsewhere (adapter import)"},
    {"steps", SETTING_INTEGER, FIELD(steps), "100", 0, 1e7, NULL, 0, "training steps"},
    {"epochs", SETTING_NUMBER, FIELD(epochs), "0", 0, 1e6, NULL, SETTING_NO_NUMBERS, "passes over the training rows, which make the steps (rounded up); 0: steps says"},
    {"micro_batch", SETTING_INTEGER, FIELD(micro_batch), "0", 0, 1e6, NULL, SETTING_LATER, "rows (sft) or groups (grpo) in memory at a time, summed up to the whole batch; 0: as many as fit"},
    {"engine.activation_checkpointing", SETTING_CHOICE, FIELD(engine.activation_checkpointing), "\"none\"", 0, 0, "none|selective|full", SETTING_NO_NUMBERS, "which activations are computed again in the backward instead of kept: selective: the MLP's wide ones, full: all but the layers' inputs"},
    {"engine.precision", SETTING_CHOICE, FIELD(engine.precision), "\"f32\"", 0, 0, "f32|bf16|f16", SETTING_LATER, "in which activations wait for the backward, and gradients between layers; what is computed is f32"},
    {"engine.loss_scale", SETTING_NUMBER, FIELD(engine.loss_scale), "65536", 1, 1e30, NULL, SETTING_LATER, "that f16 starts with; an update with a gradient beyond f16 is skipped, and the scale halved"},
    {"engine.loss_scale_window", SETTING_INTEGER, FIELD(engine.loss_scale_window), "2000", 1, 1e9, NULL, SETTING_LATER, "updates without that, after which it doubles"},
    {"seed", SETTING_SEED, FIELD(seed), "1", 0, SEED_MAX, NULL, 0, "of the data's order and of sampling"},

    {"start_run", SETTING_TEXT, FIELD(start_run), "\"\"", 0, 0, NULL, SETTING_NO_NUMBERS, "a stored run that is done, of the same model and adapter, whose scalars this one starts from"},
    {"start_sha256", SETTING_TEXT, FIELD(start_sha256), "\"\"", 0, 0, NULL, SETTING_LATER, "of those scalars; filled in, and checked where it is given"},

    {"adapter.method", SETTING_CHOICE, FIELD(adapter.method), "\"tinylora\"", 0, 0, "tinylora|lora|lora-xs|full|none", 0, "what is trained"},
    {"adapter.budget", SETTING_INTEGER, FIELD(adapter.budget), "0", 0, 1e9, NULL, 0, "trained scalars; 0: u x groups, or 13"},
    {"adapter.rank", SETTING_INTEGER, FIELD(adapter.rank), "2", 1, 256, NULL, 0, "r: of the frozen SVD, or of LoRA's A and B; where it is not given, 8 for lora and lora-xs"},
    {"adapter.tie", SETTING_CHOICE, FIELD(adapter.tie), "\"tiled\"", 0, 0, "tiled|structured|all|none|by-role|map", 0, "which modules share scalars: of similar depth, of one type, all, none, attention and MLP apart, or as a file says"},
    {"adapter.u", SETTING_INTEGER, FIELD(adapter.u), "0", 0, 1e9, NULL, 0, "scalars a group; 0: chosen by the planner"},
    {"adapter.groups", SETTING_INTEGER, FIELD(adapter.groups), "0", 0, 1e9, NULL, 0, "tie groups; 0: chosen by the planner"},
    {"adapter.grouping", SETTING_CHOICE, FIELD(adapter.grouping), "\"auto\"", 0, 0, "auto|chunks|balanced|floor", 0, "how modules are cut into groups: the paper's chunks, the last one short, or even sizes; auto: chunks where they fit; floor: PEFT's chunks, the last one long"},
    {"adapter.seed", SETTING_SEED, FIELD(adapter.seed), "13", 0, SEED_MAX, NULL, 0, "of the frozen random P, LoRA's A and random start values"},
    {"adapter.targets", SETTING_TARGETS, FIELD(adapter.targets), ALL_TARGETS, 0, 0, NULL, 0, "linear layers that are adapted"},
    {"adapter.scale", SETTING_NUMBER, FIELD(adapter.scale), "1", 0, 1e6, NULL, SETTING_OPEN_LOW, "s in W' = W + s U S R V^T, or W + s B A"},
    {"adapter.preset", SETTING_CHOICE, FIELD(adapter.preset), "\"none\"", 0, 0, "none|paper|peft|anrgusc", SETTING_NO_NUMBERS, "defaults and planner of another tool, for the settings of adapter.* that are not given"},
    {"adapter.tie_factor", SETTING_INTEGER, FIELD(adapter.tie_factor), "0", 0, 1e6, NULL, SETTING_LATER, "n_tie, modules a chunk, which makes the groups; 0: from the groups"},
    {"adapter.weight_tying", SETTING_NUMBER, FIELD(adapter.weight_tying), "-1", -1, 1, NULL, SETTING_NO_NUMBERS, "PEFT's measure, which makes the groups: 0 none shared, 1 all; -1: not used"},
    {"adapter.map", SETTING_PATH, FIELD(adapter.map), "\"\"", 0, 0, NULL, SETTING_NO_NUMBERS, "of the tie rule map: a JSON file {\"model.layers.0.self_attn.q_proj\": 0, ...}"},
    {"adapter.map_sha256", SETTING_TEXT, FIELD(adapter.map_sha256), "\"\"", 0, 0, NULL, SETTING_LATER, "of the map; filled in, and checked where it is given"},
    {"adapter.order", SETTING_CHOICE, FIELD(adapter.order), "\"named\"", 0, 0, "named|layer-sorted", SETTING_LATER, "of the modules that are cut: q, k, v, o, gate, up, down a layer, or by name"},
    {"adapter.sigma", SETTING_CHOICE, FIELD(adapter.sigma), "\"left\"", 0, 0, "left|sqrt", SETTING_LATER, "U S R V^T (paper) or U sqrt(S) R sqrt(S) V^T (PEFT)"},
    {"adapter.projection", SETTING_CHOICE, FIELD(adapter.projection), "\"gauss\"", 0, 0, "gauss|gauss_unit|rademacher|orthonormal", SETTING_LATER, "law of P: N(0, 1/r), N(0, 1), +-1/sqrt(r), or orthonormal in blocks of r^2"},
    {"adapter.projection_shared", SETTING_SWITCH, FIELD(adapter.projection_shared), "false", 0, 0, NULL, SETTING_LATER, "the same P in every module, which leaves r^2 degrees of freedom a group"},
    {"adapter.alpha", SETTING_NUMBER, FIELD(adapter.alpha), "0", 0, 1e6, NULL, SETTING_LATER, "s = alpha / u (tinylora) or alpha / rank (lora, lora-xs); 0: adapter.scale"},
    {"adapter.init", SETTING_CHOICE, FIELD(adapter.init), "\"zeros\"", 0, 0, "zeros|normal|uniform", SETTING_LATER, "how v (lora-xs: R) starts, drawn from adapter.seed"},
    {"adapter.init_size", SETTING_NUMBER, FIELD(adapter.init_size), "0", 0, 1e6, NULL, SETTING_LATER, "standard deviation of normal, bound of uniform; 0: 0.001 and 0.02"},
    {"adapter.dtype", SETTING_CHOICE, FIELD(adapter.dtype), "\"f32\"", 0, 0, "f32|bf16|f16", SETTING_LATER, "what the model sees of v; the optimizer's v stays f32"},
    {"adapter.rslora", SETTING_SWITCH, FIELD(adapter.rslora), "false", 0, 0, NULL, SETTING_LATER, "s = alpha / sqrt(rank) (lora, lora-xs)"},
    {"adapter.dropout", SETTING_NUMBER, FIELD(adapter.dropout), "0", 0, 0.999999999, NULL, SETTING_LATER, "of LoRA's input, while training"},

    {"data.task", SETTING_CHOICE, FIELD(data.task), "\"none\"", 0, 0, "none|gsm8k|svamp|multiarith|math500|digit-completion", SETTING_NO_NUMBERS, "a known data set: what is not given of data.* and reward is its own"},
    {"data.folder", SETTING_PATH, FIELD(data.folder), "\"\"", 0, 0, NULL, SETTING_NO_NUMBERS, "where the files of data.task lie; else $TINYLORA_DATA"},
    {"data.train", SETTING_PATH, FIELD(data.train), NULL, 0, 0, NULL, SETTING_NO_NUMBERS, "training rows, JSON Lines (*.json: one array)"},
    {"data.dev", SETTING_PATH, FIELD(data.dev), "\"\"", 0, 0, NULL, SETTING_NO_NUMBERS, "held-out rows that choose the learning rate; without them data.eval does"},
    {"data.eval", SETTING_PATH, FIELD(data.eval), "\"\"", 0, 0, NULL, SETTING_NO_NUMBERS, "test rows, scored by `eval`"},
    {"data.question", SETTING_TEXT, FIELD(data.question), "\"question\"", 0, 0, NULL, 0, "field of the question, or a text of fields: {instruction}\\n{input}"},
    {"data.answer", SETTING_TEXT, FIELD(data.answer), "\"answer\"", 0, 0, NULL, 0, "field of the reference answer"},
    {"data.template", SETTING_TEXT, FIELD(data.template), "\"plain\"", 0, 0, NULL, 0, "plain, chatml, qwen2.5, qwen3, smollm2, llama3, llama2, or a text with {question}"},

    {"reward.name", SETTING_TEXT, FIELD(reward[0].name), "\"exact_match\"", 0, 0, NULL, 0, "what a completion is worth"},
    {"reward.extractor", SETTING_TEXT, FIELD(reward[0].extractor), "\"flexible\"", 0, 0, NULL, 0, "how the answer is read out of a completion (exact_match, format)"},
    {"reward.pattern", SETTING_TEXT, FIELD(reward[0].pattern), "\"\"", 0, 0, NULL, 0, "of the reward `regex`"},
    {"reward.length", SETTING_INTEGER, FIELD(reward[0].length), "20", 0, 1e9, NULL, SETTING_LATER, "characters, of the reward `length`: minus the distance from them"},
    {"reward.command", SETTING_TEXT, FIELD(reward[0].command), "\"\"", 0, 0, NULL, SETTING_LATER, "of the reward `command`: JSON Lines in and out, by /bin/sh in the working directory"},
    {"reward.timeout_s", SETTING_NUMBER, FIELD(reward[0].timeout_s), "30", 0, 86400, NULL, SETTING_LATER | SETTING_OPEN_LOW, "how long the command may take for a row"},
    {"reward.weight", SETTING_NUMBER, FIELD(reward[0].weight), "1", -1e6, 1e6, NULL, 0, "in a list of rewards"},

    {"grpo.prompts_per_step", SETTING_INTEGER, FIELD(grpo.prompts_per_step), "8", 1, 1e6, NULL, 0, "questions a step; the batch is so many x group_size completions"},
    {"grpo.group_size", SETTING_INTEGER, FIELD(grpo.group_size), "8", 1, 1e5, NULL, 0, "completions a question"},
    {"grpo.max_new_tokens", SETTING_INTEGER, FIELD(grpo.max_new_tokens), "128", 1, 1e6, NULL, 0, "length limit of a completion"},
    {"grpo.temperature", SETTING_NUMBER, FIELD(grpo.temperature), "1", 0, 100, NULL, SETTING_OPEN_LOW, "of sampling"},
    {"grpo.top_p", SETTING_NUMBER, FIELD(grpo.top_p), "1", 0, 1, NULL, SETTING_OPEN_LOW, "1: all tokens"},
    {"grpo.top_k", SETTING_INTEGER, FIELD(grpo.top_k), "0", 0, 1e7, NULL, 0, "0: all tokens"},
    {"grpo.min_p", SETTING_NUMBER, FIELD(grpo.min_p), "0", 0, 1, NULL, SETTING_LATER, "tokens with at least this share of the likeliest one's probability; 0: all"},
    {"grpo.repetition_penalty", SETTING_NUMBER, FIELD(grpo.repetition_penalty), "1", 1e-3, 1e3, NULL, SETTING_LATER, "divides positive logits of tokens of prompt and completion, multiplies negative ones, in sampling alone"},
    {"grpo.loss", SETTING_CHOICE, FIELD(grpo.loss), "\"dr_grpo\"", 0, 0, "grpo|dr_grpo|dapo|bnpo|gspo|cispo|reinforce", 0, "what is minimised, and how tokens are averaged (docs/grpo.md)"},
    {"grpo.scale_rewards", SETTING_CHOICE, FIELD(grpo.scale_rewards), "\"auto\"", 0, 0, "auto|group|batch|none", 0, "what advantages are divided by; auto: none for dr_grpo and leave_one_out, else group"},
    {"grpo.clip_low", SETTING_NUMBER, FIELD(grpo.clip_low), "0.2", 0, 1, NULL, 0, "ratios below 1 - clip_low are clipped"},
    {"grpo.clip_high", SETTING_NUMBER, FIELD(grpo.clip_high), "0.28", 0, 1e6, NULL, 0, "ratios above 1 + clip_high are clipped"},
    {"grpo.kl_beta", SETTING_NUMBER, FIELD(grpo.kl_beta), "0", 0, 1e6, NULL, 0, "weight of the KL to the base model (k3)"},
    {"grpo.updates_per_batch", SETTING_INTEGER, FIELD(grpo.updates_per_batch), "1", 1, 1000, NULL, 0, "passes over one batch, each with an update a minibatch"},
    {"grpo.minibatches", SETTING_INTEGER, FIELD(grpo.minibatches), "1", 1, 1e6, NULL, SETTING_LATER, "parts of a batch, of whole groups in their order, with an update each"},
    {"grpo.baseline", SETTING_CHOICE, FIELD(grpo.baseline), "\"group\"", 0, 0, "group|leave_one_out", SETTING_LATER, "what a reward is compared with: the mean of its group, or of its group's others (RLOO)"},
    {"grpo.importance_sampling_level", SETTING_CHOICE, FIELD(grpo.importance_sampling_level), "\"token\"", 0, 0, "token|sequence", SETTING_LATER, "what has a ratio: each token, or the completion (gspo always)"},
    {"grpo.delta", SETTING_NUMBER, FIELD(grpo.delta), "0", 0, 1e6, NULL, SETTING_LATER, "no ratio above it, whatever the advantage (two-sided clipping); 0: none"},
    {"grpo.entropy_coef", SETTING_NUMBER, FIELD(grpo.entropy_coef), "0", 0, 1e6, NULL, SETTING_LATER, "bonus of the mean entropy of a minibatch's tokens"},
    {"grpo.mask_truncated_completions", SETTING_SWITCH, FIELD(grpo.mask_truncated_completions), "false", 0, 0, NULL, SETTING_LATER, "completions that did not end have no loss"},
    {"grpo.overlong_buffer", SETTING_INTEGER, FIELD(grpo.overlong_buffer), "0", 0, 1e6, NULL, SETTING_LATER, "the last tokens before max_new_tokens, over which the reward loses overlong_factor; 0: none"},
    {"grpo.overlong_factor", SETTING_NUMBER, FIELD(grpo.overlong_factor), "1", 0, 1e6, NULL, SETTING_LATER, "what a completion as long as the limit loses"},
    {"grpo.dynamic_sampling", SETTING_INTEGER, FIELD(grpo.dynamic_sampling), "0", 0, 1000, NULL, SETTING_LATER, "rounds at most in which questions whose rewards are all equal are replaced by others"},
    {"grpo.rollout", SETTING_CHOICE, FIELD(grpo.rollout), "\"exact\"", 0, 0, "exact|bf16", SETTING_LATER, "the sampler's adapter: the trainer's, or its scalars rounded to bf16"},
    {"grpo.importance_sampling_mode", SETTING_CHOICE, FIELD(grpo.importance_sampling_mode), "\"none\"", 0, 0, "none|token_truncate|token_mask|sequence_truncate|sequence_mask", SETTING_LATER, "how a rollout that is not exact is corrected: p(trainer) / p(sampler), truncated at the bounds, or 0 outside them"},
    {"grpo.importance_sampling_clip_min", SETTING_NUMBER, FIELD(grpo.importance_sampling_clip_min), "0", 0, 1e6, NULL, SETTING_LATER, "of that"},
    {"grpo.importance_sampling_clip_max", SETTING_NUMBER, FIELD(grpo.importance_sampling_clip_max), "3", 0, 1e30, NULL, SETTING_LATER, "of that"},

    {"sft.batch_size", SETTING_INTEGER, FIELD(sft.batch_size), "8", 1, 1e6, NULL, 0, "rows a step"},
    {"sft.label_smoothing", SETTING_NUMBER, FIELD(sft.label_smoothing), "0", 0, 1, NULL, SETTING_LATER, "share of the loss that is the mean of -log p over the vocabulary"},
    {"sft.loss_on", SETTING_CHOICE, FIELD(sft.loss_on), "\"answer\"", 0, 0, "answer|all", SETTING_LATER, "the answer and the end of sequence, or the prompt's tokens too"},

    {"optimizer.name", SETTING_CHOICE, FIELD(optimizer.name), "\"adamw\"", 0, 0, "adamw|sgd|none", 0, "the update rule"},
    {"optimizer.lr", SETTING_NUMBER, FIELD(optimizer.lr), "2e-4", 0, 1e38, NULL, 0, "learning rate"},
    {"optimizer.schedule", SETTING_CHOICE, FIELD(optimizer.schedule), "\"constant\"", 0, 0, "constant|linear|cosine", 0, "of the learning rate"},
    {"optimizer.warmup_steps", SETTING_INTEGER, FIELD(optimizer.warmup_steps), "0", 0, 1e7, NULL, 0, "steps of linear warm-up"},
    {"optimizer.beta1", SETTING_NUMBER, FIELD(optimizer.beta1), "0.9", 0, 0.999999999, NULL, 0, "of AdamW"},
    {"optimizer.beta2", SETTING_NUMBER, FIELD(optimizer.beta2), "0.999", 0, 0.999999999, NULL, 0, "of AdamW"},
    {"optimizer.epsilon", SETTING_NUMBER, FIELD(optimizer.epsilon), "1e-8", 0, 1, NULL, SETTING_OPEN_LOW, "of AdamW"},
    {"optimizer.weight_decay", SETTING_NUMBER, FIELD(optimizer.weight_decay), "0", 0, 1e6, NULL, 0, "decoupled"},
    {"optimizer.momentum", SETTING_NUMBER, FIELD(optimizer.momentum), "0", 0, 0.999999999, NULL, 0, "of SGD"},
    {"optimizer.grad_clip", SETTING_NUMBER, FIELD(optimizer.grad_clip), "1", 0, 1e30, NULL, 0, "largest norm of the gradient; 0: no limit"},

    {"eval.every", SETTING_INTEGER, FIELD(eval.every), "25", 0, 1e7, NULL, 0, "steps between evaluations; 0: at the end alone"},
    {"eval.rows", SETTING_INTEGER, FIELD(eval.rows), "256", 0, 1e9, NULL, 0, "the first so many rows; 0: all"},
    {"eval.samples", SETTING_INTEGER, FIELD(eval.samples), "1", 1, 1000, NULL, 0, "completions a row"},
    {"eval.pass_k", SETTING_INTEGER, FIELD(eval.pass_k), "0", 0, 1000, NULL, SETTING_LATER, "pass@k of every extractor beside its mean, from eval.samples; 0: none"},
    {"eval.greedy", SETTING_SWITCH, FIELD(eval.greedy), "false", 0, 0, NULL, 0, "the likeliest token instead of a sample"},
    {"eval.temperature", SETTING_NUMBER, FIELD(eval.temperature), "1", 0, 100, NULL, SETTING_OPEN_LOW, "of sampling"},
    {"eval.max_new_tokens", SETTING_INTEGER, FIELD(eval.max_new_tokens), "0", 0, 1e6, NULL, 0, "0: grpo.max_new_tokens"},
    {"eval.seed", SETTING_SEED, FIELD(eval.seed), "1", 0, SEED_MAX, NULL, 0, "of sampling; the same for every run, so that runs are compared on the same draws"},

    {"checkpoint.every", SETTING_INTEGER, FIELD(checkpoint.every), "1", 1, 1e7, NULL, SETTING_NO_NUMBERS, "steps between checkpoints"},
    {"checkpoint.keep", SETTING_INTEGER, FIELD(checkpoint.keep), "0", 0, 1e7, NULL, SETTING_NO_NUMBERS, "the last so many; 0: all of small adapters, 2 of large ones"},

    {"stop.reward_below", SETTING_NUMBER, FIELD(stop.reward_below), "-1e30", -1e30, 1e30, NULL, SETTING_LATER, "a run ends, cancelled, when its mean reward was below this for stop.patience steps; -1e30: never"},
    {"stop.entropy_below", SETTING_NUMBER, FIELD(stop.entropy_below), "0", 0, 1e6, NULL, SETTING_LATER, "the same for the mean entropy of a token; 0: never"},
    {"stop.patience", SETTING_INTEGER, FIELD(stop.patience), "5", 1, 1e6, NULL, SETTING_LATER, "steps in a row, of the two"},
    {"stop.rule", SETTING_CHOICE, FIELD(stop.rule), "\"none\"", 0, 0, "none|median|halving", SETTING_NO_NUMBERS, "of a sweep: cells end early, cancelled, that are below the median of all, or not among the best of a halving"},
    {"stop.first", SETTING_INTEGER, FIELD(stop.first), "10", 1, 1e6, NULL, SETTING_NO_NUMBERS, "the first step at which stop.rule decides, by the mean over so many steps; then (median) each so many, (halving) stop.factor times as late"},
    {"stop.factor", SETTING_INTEGER, FIELD(stop.factor), "2", 2, 1000, NULL, SETTING_NO_NUMBERS, "one in so many goes on in a halving"},

    {"scan.x", SETTING_TEXT, FIELD(scan.x), "\"auto\"", 0, 0, NULL, 0, "min:max:points, both ends in; auto or auto:points: -0.05:0.05:21, through runs what holds them"},
    {"scan.y", SETTING_TEXT, FIELD(scan.y), "\"auto\"", 0, 0, NULL, 0, "the same for y"},
    {"scan.rows", SETTING_INTEGER, FIELD(scan.rows), "128", 0, 1e9, NULL, 0, "the first so many rows of data.train; 0: all"},
    {"scan.max_length", SETTING_INTEGER, FIELD(scan.max_length), "512", 0, 1e7, NULL, 0, "tokens of a row, the rest is cut; 0: the model's context"},
    {"scan.values", SETTING_WORDS, FIELD(scan.values), "[\"loss\"]", 0, 0, "loss|accuracy|reward|entropy|kl|grad_norm", 0, "what is measured at each point; the first is the surface's own"},
    {"scan.directions", SETTING_CHOICE, FIELD(scan.directions), "\"scalars\"", 0, 0, "scalars|axes|random|pca|runs", 0, "scalars: v is (x, y); else a plane through the run's v: two of its axes, random, its path's principal ones, to run_2"},
    {"scan.run", SETTING_TEXT, FIELD(scan.run), "\"\"", 0, 0, NULL, 0, "a stored run, whose adapter it is then"},
    {"scan.run_2", SETTING_TEXT, FIELD(scan.run_2), "\"\"", 0, 0, NULL, 0, "another one of the same adapter, of the directions runs"},
    {"scan.axes", SETTING_TEXT, FIELD(scan.axes), "\"0:1\"", 0, 0, NULL, 0, "two indices of v, of the directions axes"},
    {"scan.seed", SETTING_SEED, FIELD(scan.seed), "1", 0, SEED_MAX, NULL, 0, "of the directions random"},
};
/* clang-format on */

enum { N_SETTINGS = sizeof table / sizeof table[0] };

_Static_assert((int)N_SETTINGS <= (int)(sizeof((RunSpec *)0)->adapter.given),
               "RunSpec.adapter.given");

size_t settings_count(void)
{
    return N_SETTINGS;
}

const Setting *setting_at(size_t i)
{
    return &table[i];
}

bool *setting_given(RunSpec *spec, const char *path)
{
    int reward;
    const Setting *setting = setting_find(path, &reward);
    return &spec->adapter.given[setting - table];
}

const Setting *setting_find(const char *path, int *reward)
{
    char plain[128];
    *reward = 0;
    if (strncmp(path, "reward.", 7) == 0 && path[7] >= '0' && path[7] < '0' + MAX_REWARDS &&
        path[8] == '.' && strlen(path) < sizeof plain) {
        *reward = path[7] - '0';
        snprintf(plain, sizeof plain, "reward%s", path + 8);
        path = plain;
    }
    for (size_t i = 0; i < N_SETTINGS; i++) {
        if (strcmp(table[i].path, path) == 0) {
            return &table[i];
        }
    }
    return NULL;
}

static bool starts_with(const char *path, const char *prefix)
{
    return strncmp(path, prefix, strlen(prefix)) == 0;
}

/* Is `word` one of "a,b,c"? */
static bool has_word(const char *words, const char *word)
{
    size_t n = strlen(word);
    for (const char *at = words; *at; at += strcspn(at, ",") + (at[strcspn(at, ",")] == ',')) {
        if (strcspn(at, ",") == n && strncmp(at, word, n) == 0) {
            return true;
        }
    }
    return false;
}

bool spec_measures(const RunSpec *spec, const char *value)
{
    return has_word(spec->scan.values, value);
}

/* What a surface depends on: answers are sampled for accuracy and reward alone. */
static bool applies_to_scan(const RunSpec *spec, const char *path)
{
    static const struct {
        const char *path, *directions;
    } of_directions[] = {{"scan.run", "axes,random,pca,runs"},
                         {"scan.run_2", "runs"},
                         {"scan.axes", "axes"},
                         {"scan.seed", "random"}};
    static const char *const never[] = {"stop.",       "grpo.",    "sft.",     "optimizer.",
                                        "checkpoint.", "engine.",  "epochs",   "micro_batch",
                                        "start_",      "steps",    "seed",     "eval.every",
                                        "eval.rows",   "data.dev", "data.eval"};
    bool accuracy = spec_measures(spec, "accuracy"), reward = spec_measures(spec, "reward");
    for (size_t i = 0; i < sizeof never / sizeof never[0]; i++) {
        if (starts_with(path, never[i])) {
            return false;
        }
    }
    for (size_t i = 0; i < sizeof of_directions / sizeof of_directions[0]; i++) {
        if (strcmp(path, of_directions[i].path) == 0) {
            return has_word(of_directions[i].directions, spec->scan.directions);
        }
    }
    if (starts_with(path, "eval.")) {
        return accuracy || reward;
    }
    if (starts_with(path, "reward.")) {
        return reward || (accuracy && strcmp(path, "reward.extractor") == 0);
    }
    return true;
}

/* Plans are tinylora's; full and none have no settings. */
static bool applies_to_adapter(const RunSpec *spec, const char *path)
{
    static const struct {
        const char *path, *methods;
    } of_methods[] = {{"adapter.method", "tinylora,lora,lora-xs,full,none"},
                      {"adapter.rank", "tinylora,lora,lora-xs"},
                      {"adapter.targets", "tinylora,lora,lora-xs"},
                      {"adapter.seed", "tinylora,lora,lora-xs"},
                      {"adapter.scale", "tinylora,lora,lora-xs"},
                      {"adapter.alpha", "tinylora,lora,lora-xs"},
                      {"adapter.sigma", "tinylora,lora-xs"},
                      {"adapter.init", "tinylora,lora-xs"},
                      {"adapter.init_size", "tinylora,lora-xs"},
                      {"adapter.rslora", "lora,lora-xs"},
                      {"adapter.dropout", "lora"}};
    const char *methods = "tinylora";
    for (size_t i = 0; i < sizeof of_methods / sizeof of_methods[0]; i++) {
        methods = strcmp(path, of_methods[i].path) == 0 ? of_methods[i].methods : methods;
    }
    return has_word(methods, spec->adapter.method);
}

bool setting_applies(const RunSpec *spec, const Setting *setting)
{
    const char *path = setting->path;
    bool scan = strcmp(spec->method, "scan") == 0;
    if (scan ? !applies_to_scan(spec, path) : starts_with(path, "scan.")) {
        return false;
    }
    if (starts_with(path, "grpo.")) {
        return strcmp(spec->method, "grpo") == 0;
    }
    if (starts_with(path, "sft.")) {
        return strcmp(spec->method, "sft") == 0;
    }
    if (strcmp(path, "stop.reward_below") == 0) {
        return strcmp(spec->method, "grpo") == 0;
    }
    if (strcmp(path, "stop.first") == 0 || strcmp(path, "stop.factor") == 0) {
        return strcmp(spec->stop.rule, "none") != 0;
    }
    if (starts_with(path, "engine.loss_scale")) {
        return strcmp(spec->engine.precision, "f16") == 0;
    }
    if (strcmp(path, "stop.patience") == 0) {
        return spec->stop.entropy_below > 0 || spec->stop.reward_below > STOP_NEVER;
    }
    return !starts_with(path, "adapter.") || applies_to_adapter(spec, path);
}

char *setting_field(RunSpec *spec, const Setting *setting, int reward)
{
    size_t shift = starts_with(setting->path, "reward.") ? sizeof(RewardSetting) * reward : 0;
    return (char *)spec + setting->offset + shift;
}

static void words_json(const char *words, Text *out)
{
    const char *separator = "[";
    for (const char *at = words; *at; at += strcspn(at, ",") + (at[strcspn(at, ",")] == ',')) {
        text_add(out, separator);
        text_json_string(out, at, strcspn(at, ","));
        separator = ", ";
    }
    text_add(out, "]");
}

static void targets_json(unsigned targets, Text *out)
{
    const char *separator = "[";
    for (int role = 0; role < N_ROLES; role++) {
        if (targets >> role & 1) {
            text_printf(out, "%s\"%s\"", separator, role_name((Role)role));
            separator = ",";
        }
    }
    text_add(out, "]");
}

void shortest_number(Text *out, double number)
{
    char digits[32];
    for (int precision = 1; precision <= 17; precision++) {
        snprintf(digits, sizeof digits, "%.*g", precision, number);
        if (strtod(digits, NULL) == number) {
            break;
        }
    }
    text_add(out, digits);
}

void setting_value_json(const RunSpec *spec, const Setting *setting, int reward, Text *out)
{
    const char *field = setting_field((RunSpec *)(uintptr_t)spec, setting, reward);
    double number;
    int64_t seed;
    int integer;
    unsigned targets;
    bool on;
    switch (setting->kind) {
    case SETTING_TEXT:
    case SETTING_PATH:
    case SETTING_MODEL:
    case SETTING_CHOICE:
        text_json_string(out, field, strlen(field));
        break;
    case SETTING_INTEGER:
        memcpy(&integer, field, sizeof integer);
        text_printf(out, "%d", integer);
        break;
    case SETTING_SEED:
        memcpy(&seed, field, sizeof seed);
        text_printf(out, "%lld", (long long)seed);
        break;
    case SETTING_NUMBER:
        memcpy(&number, field, sizeof number);
        shortest_number(out, number);
        break;
    case SETTING_SWITCH:
        memcpy(&on, field, sizeof on);
        text_add(out, on ? "true" : "false");
        break;
    case SETTING_WORDS:
        words_json(field, out);
        break;
    case SETTING_TARGETS:
        memcpy(&targets, field, sizeof targets);
        targets_json(targets, out);
        break;
    }
}

static Status wrong_kind(const Json *value, const char *expected, Error *error)
{
    return error_set(error, STATUS_USAGE, "%s where %s is expected",
                     json_kind_name(json_kind(value)), expected);
}

static Status parse_text(char *field, const Setting *setting, const Json *value, Error *error)
{
    size_t n;
    const char *text = json_string(value, &n);
    if (!text) {
        return wrong_kind(value, "a string", error);
    }
    if (n >= setting->size) {
        return error_set(error, STATUS_USAGE, "longer than %zu bytes", setting->size - 1);
    }
    if (memchr(text, 0, n)) {
        return error_set(error, STATUS_USAGE, "a NUL character in the string");
    }
    memcpy(field, text, n);
    field[n] = 0;
    return STATUS_OK;
}

/* The words of "a|b|c", as a list for nearest_name. words: (n), pointing into copy. */
static size_t split_choices(const char *choices, char copy[256], const char *words[16])
{
    size_t n = 0;
    strncpy(copy, choices, 255);
    copy[255] = 0;
    char *rest = copy;
    for (char *word; n < 16 && (word = strsep(&rest, "|"));) {
        words[n++] = word;
    }
    return n;
}

static Status parse_choice(char *field, const Setting *setting, const Json *value, Error *error)
{
    char copy[256];
    const char *words[16];
    const char *text = json_string(value, NULL);
    if (!text) {
        return wrong_kind(value, "a string", error);
    }
    size_t n = split_choices(setting->choices, copy, words);
    for (size_t i = 0; i < n; i++) {
        if (strcmp(words[i], text) == 0) {
            strcpy(field, text);
            return STATUS_OK;
        }
    }
    const char *nearest = nearest_name(text, words, n);
    return error_set(error, STATUS_USAGE, "\"%.64s\" is not one of %s; the nearest is \"%s\"", text,
                     setting->choices, nearest);
}

static Status check_range(const Setting *setting, double number, const char *written, Error *error)
{
    bool open = setting->flags & SETTING_OPEN_LOW;
    if ((open ? number > setting->min : number >= setting->min) && number <= setting->max) {
        return STATUS_OK;
    }
    return error_set(error, STATUS_USAGE, "%.40s is out of range (%s %.15g, at most %.15g)",
                     written, open ? "more than" : "at least", setting->min, setting->max);
}

static Status parse_number(char *field, const Setting *setting, const Json *value, Error *error)
{
    double number = 0;
    int64_t integer = 0;
    bool whole = setting->kind != SETTING_NUMBER;
    if (json_kind(value) != JSON_NUMBER) {
        return wrong_kind(value, whole ? "a whole number" : "a number", error);
    }
    const char *written = json_number_text(value);
    if (!json_double(value, &number)) {
        return error_set(error, STATUS_USAGE, "%.40s is not a finite number", written);
    }
    Status status = check_range(setting, number, written, error);
    if (status) {
        return status;
    }
    if (!whole) {
        memcpy(field, &number, sizeof number);
        return STATUS_OK;
    }
    if (!json_int64(value, &integer)) {
        return error_set(error, STATUS_USAGE, "%.40s where a whole number is expected", written);
    }
    if (setting->kind == SETTING_SEED) {
        memcpy(field, &integer, sizeof integer);
    } else {
        int small = (int)integer;
        memcpy(field, &small, sizeof small);
    }
    return STATUS_OK;
}

static Status parse_words(char *field, const Setting *setting, const Json *value, Error *error)
{
    char copy[256], words[64] = "";
    const char *choices[16];
    size_t n_choices = split_choices(setting->choices, copy, choices), at = 0;
    if (json_kind(value) != JSON_ARRAY || json_size(value) == 0) {
        return wrong_kind(value, "a list of words", error);
    }
    for (size_t i = 0; i < json_size(value); i++) {
        const char *text = json_string(json_at(value, i), NULL);
        size_t j = 0;
        if (!text) {
            return wrong_kind(json_at(value, i), "a word", error);
        }
        while (j < n_choices && strcmp(choices[j], text) != 0) {
            j++;
        }
        if (j == n_choices) {
            return error_set(error, STATUS_USAGE,
                             "\"%.64s\" is not one of %s; the nearest is \"%s\"", text,
                             setting->choices, nearest_name(text, choices, n_choices));
        }
        if (has_word(words, text)) {
            return error_set(error, STATUS_USAGE, "\"%s\" is there twice", text);
        }
        at += (size_t)snprintf(words + at, sizeof words - at, "%s%s", at ? "," : "", text);
    }
    memcpy(field, words, at + 1);
    return STATUS_OK;
}

static Status parse_targets(char *field, const Json *value, Error *error)
{
    const char *names[N_ROLES];
    unsigned targets = 0;
    for (int role = 0; role < N_ROLES; role++) {
        names[role] = role_name((Role)role);
    }
    if (json_kind(value) != JSON_ARRAY || json_size(value) == 0) {
        return wrong_kind(value, "a list of linear layers", error);
    }
    for (size_t i = 0; i < json_size(value); i++) {
        const char *text = json_string(json_at(value, i), NULL);
        int role = 0;
        if (!text) {
            return wrong_kind(json_at(value, i), "the name of a linear layer", error);
        }
        while (role < N_ROLES && strcmp(names[role], text) != 0) {
            role++;
        }
        if (role == N_ROLES) {
            return error_set(error, STATUS_USAGE,
                             "\"%.64s\" is not a linear layer; the nearest is \"%s\"", text,
                             nearest_name(text, names, N_ROLES));
        }
        if (targets >> role & 1) {
            return error_set(error, STATUS_USAGE, "\"%s\" is there twice", text);
        }
        targets |= 1u << role;
    }
    memcpy(field, &targets, sizeof targets);
    return STATUS_OK;
}

Status setting_parse(RunSpec *spec, const Setting *setting, int reward, const Json *value,
                     Error *error)
{
    char *field = setting_field(spec, setting, reward);
    bool on;
    switch (setting->kind) {
    case SETTING_TEXT:
    case SETTING_PATH:
    case SETTING_MODEL:
        return parse_text(field, setting, value, error);
    case SETTING_CHOICE:
        return parse_choice(field, setting, value, error);
    case SETTING_INTEGER:
    case SETTING_SEED:
    case SETTING_NUMBER:
        return parse_number(field, setting, value, error);
    case SETTING_SWITCH:
        if (!json_bool(value, &on)) {
            return wrong_kind(value, "true or false", error);
        }
        memcpy(field, &on, sizeof on);
        return STATUS_OK;
    case SETTING_WORDS:
        return parse_words(field, setting, value, error);
    case SETTING_TARGETS:
        return parse_targets(field, value, error);
    }
    return STATUS_OK;
}

/* The defaults are JSON in the table; they are parsed like anything else, in one list. */
void settings_default(RunSpec *spec)
{
    JsonDocument *document = NULL;
    Text list = {0};
    memset(spec, 0, sizeof *spec);
    spec->n_rewards = 1;
    for (size_t i = 0; i < N_SETTINGS; i++) {
        text_add(&list, i ? ", " : "[");
        text_add(&list, table[i].fallback ? table[i].fallback : "null");
    }
    text_add(&list, "]");
    Status status = json_parse(&document, list.bytes, list.n, NULL);
    assert(!status);
    (void)status;
    for (size_t i = 0; i < N_SETTINGS; i++) {
        const Setting *setting = &table[i];
        int n_rewards = starts_with(setting->path, "reward.") ? MAX_REWARDS : 1;
        for (int reward = 0; reward < n_rewards && setting->fallback; reward++) {
            setting_parse(spec, setting, reward, json_at(json_root(document), i), NULL);
        }
    }
    json_free(document);
    text_release(&list);
}

bool setting_same(const RunSpec *a, const RunSpec *b, const Setting *setting)
{
    Text one = {0}, other = {0};
    int n = starts_with(setting->path, "reward.") ? a->n_rewards : 1;
    for (int reward = 0; reward < n; reward++) {
        setting_value_json(a, setting, reward, &one);
        setting_value_json(b, setting, reward, &other);
    }
    bool same = strcmp(text_string(&one), text_string(&other)) == 0;
    text_release(&one);
    text_release(&other);
    return same;
}
