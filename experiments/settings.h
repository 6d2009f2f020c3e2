/* A run's settings: the struct, and the one table that says of each its name, type, default, range
 * and meaning. The table drives reading, --set, `config show`, the identity of a run and its param
 * rows; a default is written there alone. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/json.h"
#include "core/status.h"
#include "core/text.h"

enum { MAX_REWARDS = 4, CONFIG_PATH = 1024 };
#define STOP_NEVER -1e30

typedef struct {
    char name[32];
    char pattern[1024];
    char extractor[32];
    double weight;
    int length;
    char command[1024];
    double timeout_s;
} RewardSetting;

/* One cell, resolved: every setting has its value. Plain data, copied by assignment. */
typedef struct {
    char experiment[128];
    char model[CONFIG_PATH]; /* a directory, or the name of an embedded model */
    struct {
        char method[16], tie[16], grouping[16];
        int budget;          /* 0: u * groups */
        int rank, u, groups; /* u, groups 0: chosen by the planner */
        int64_t seed;
        unsigned targets; /* bit per Role */
        double scale;
        char preset[16], order[16], sigma[16], projection[16], init[16], dtype[16];
        int tie_factor;        /* 0: none */
        double weight_tying;   /* -1: none */
        char map[CONFIG_PATH]; /* "": none */
        char map_sha256[65];   /* "": until it is read */
        bool projection_shared;
        double alpha, init_size; /* 0: none, chosen by init */
        bool rslora;
        double dropout;
        bool given[160]; /* by index of the setting, of adapter.* alone: not left at its default */
    } adapter;
    struct {
        char train[CONFIG_PATH], dev[CONFIG_PATH], eval[CONFIG_PATH]; /* "": none */
        char task[24], folder[CONFIG_PATH];
        char question[512], answer[512];
        char template[4096];
    } data;
    char method[16];
    RewardSetting reward[MAX_REWARDS];
    int n_rewards;
    struct {
        int prompts_per_step, group_size, max_new_tokens;
        double temperature, top_p, min_p, repetition_penalty;
        int top_k;
        char loss[16], scale_rewards[16], importance_sampling_level[16], baseline[16];
        double clip_low, clip_high, delta, kl_beta, entropy_coef;
        int updates_per_batch, minibatches;
        bool mask_truncated_completions;
        int overlong_buffer, dynamic_sampling;
        double overlong_factor;
        char rollout[16], importance_sampling_mode[24];
        double importance_sampling_clip_min, importance_sampling_clip_max;
    } grpo;
    struct {
        int batch_size;
        double label_smoothing;
        char loss_on[16];
    } sft;
    struct {
        char name[16], schedule[16];
        double lr, beta1, beta2, epsilon, weight_decay, momentum, grad_clip;
        int warmup_steps;
    } optimizer;
    int steps;
    double epochs; /* 0: steps says */
    int micro_batch;
    struct {
        char activation_checkpointing[16], precision[8];
        double loss_scale;
        int loss_scale_window;
    } engine;
    int64_t seed;
    char start_run[24], start_sha256[65]; /* "": at the adapter's own start */
    struct {
        int every, rows, samples, pass_k, max_new_tokens;
        bool greedy;
        double temperature;
        int64_t seed;
    } eval;
    struct {
        int every, keep;
    } checkpoint;
    struct {
        double reward_below, entropy_below; /* STOP_NEVER, 0: off */
        int patience;
        char rule[16];
        int first, factor;
    } stop;
    struct {
        char x[96], y[96]; /* "min:max:points"; "auto" until the plane is known */
        int rows, max_length;
        char values[64]; /* "loss,accuracy": the first is the surface's own */
        char directions[16];
        char run[24], run_2[24];
        char axes[32];
        int64_t seed;
    } scan;
} RunSpec;

typedef enum {
    SETTING_TEXT,
    SETTING_PATH,    /* a file; relative to the config's folder */
    SETTING_MODEL,   /* a directory or an embedded name */
    SETTING_CHOICE,  /* one of a few words */
    SETTING_INTEGER, /* int */
    SETTING_SEED,    /* int64_t, 0 or more */
    SETTING_NUMBER,  /* double */
    SETTING_SWITCH,  /* bool */
    SETTING_WORDS,   /* list of different words among a few, in their order, kept as "a,b" */
    SETTING_TARGETS  /* list of linear layers, as bits */
} SettingKind;

enum {
    SETTING_NO_NUMBERS = 1, /* changes nothing that a run computes: not part of its identity */
    SETTING_OPEN_LOW = 2,   /* min itself is out of range */
    SETTING_LATER = 4       /* added after runs were made without it: at its default it is not part
                             * of an identity, and theirs stays */
};

typedef struct {
    const char *path; /* "grpo.group_size" */
    SettingKind kind;
    size_t offset, size;  /* of the field in RunSpec */
    const char *fallback; /* JSON; NULL: must be given */
    double min, max;
    const char *choices; /* "a|b|c" */
    unsigned flags;
    const char *doc;
} Setting;

size_t settings_count(void);
const Setting *setting_at(size_t i);
/* Was a setting of adapter.* given (a preset of another tool does not change it)? */
bool *setting_given(RunSpec *spec, const char *path);
/* Has it the same value in both (reward.*: of each reward that a has)? */
bool setting_same(const RunSpec *a, const RunSpec *b, const Setting *setting);
/* Does the setting matter to this spec (grpo.* does not to sft, plans do not to full)? */
bool setting_applies(const RunSpec *spec, const Setting *setting);
/* Is a value measured at each point of a scan ("loss", "accuracy", ...)? */
bool spec_measures(const RunSpec *spec, const char *value);
/* Append the setting's value as JSON; reward: whose, for reward.* */
void setting_value_json(const RunSpec *spec, const Setting *setting, int reward, Text *out);

/* Append the fewest digits that read back as the same number. */
void shortest_number(Text *out, double number);

/* NULL when no setting has this path; "reward.1.name" is "reward.name" of the second reward, whose
 * index goes to *reward. */
const Setting *setting_find(const char *path, int *reward);
/* Every setting at its default; those that must be given are empty. */
void settings_default(RunSpec *spec);
/* Put a JSON value into the field. Errors: STATUS_USAGE: the rule broken, without the place. Paths
 * and models as they are written. */
Status setting_parse(RunSpec *spec, const Setting *setting, int reward, const Json *value,
                     Error *error);
/* Where a path or a model is kept; for the caller who resolves it. */
char *setting_field(RunSpec *spec, const Setting *setting, int reward);
