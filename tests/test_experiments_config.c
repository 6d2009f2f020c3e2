/* Configs: what is read, what is refused and with which words; grids; the identity of runs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/file.h"
#include "experiments/grid.h"
#include "experiments/identity.h"
#include "experiments/nearest.h"

#define REQUIRED "\"model\": \"m\", \"data\": {\"train\": \"t.jsonl\"}"

static char folder[] = "/tmp/tinylora-config-XXXXXX";
static char path[128];
static Config *config;
static Error error;

static int make_folder(void **state)
{
    (void)state;
    if (!mkdtemp(folder)) {
        return 1;
    }
    snprintf(path, sizeof path, "%s/c.json", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder);
}

static int close_config(void **state)
{
    (void)state;
    config_free(config);
    config = NULL;
    memset(&error, 0, sizeof error);
    return 0;
}

static Status read_text(const char *text, const char *const *overrides, size_t n)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    return config_read(&config, path, overrides, n, "", &error);
}

/* The message of a refused text, after the path; the status is checked. */
static const char *refusal(const char *text)
{
    assert_int_equal(read_text(text, NULL, 0), STATUS_USAGE);
    assert_null(config);
    const char *place = strstr(error.message, path);
    assert_non_null(place); /* the file is named */
    return place + strlen(path);
}

static const char *settle_refusal(const char *text)
{
    RunSpec spec;
    assert_int_equal(read_text(text, NULL, 0), STATUS_OK);
    spec = config->base;
    assert_int_equal(config_settle(config, &spec, &error), STATUS_USAGE);
    config_free(config);
    config = NULL;
    return strstr(error.message, path) + strlen(path);
}

static void touch(const char *name)
{
    char whole[256];
    snprintf(whole, sizeof whole, "%s/%s", folder, name);
    FILE *file = fopen(whole, "w");
    assert_non_null(file);
    fclose(file);
}

static void drop(const char *name)
{
    char whole[256];
    snprintf(whole, sizeof whole, "%s/%s", folder, name);
    unlink(whole);
}

static void a_known_task_fills_in_what_was_not_given(void **state)
{
    (void)state;
    char expected[256];
    RunSpec spec;
    const char *message = settle_refusal("{\"model\": \"m\", \"data\": {\"task\": \"gsm8k\"}}");
    assert_non_null(strstr(message, "give data.folder or $TINYLORA_DATA, or the files themselves"));
    close_config(state);
    message = settle_refusal(
        "{\"model\": \"m\", \"data\": {\"task\": \"gsm8k\", \"folder\": \"/none\"}}");
    assert_non_null(strstr(message, "\"gsm8k\": neither gsm8k/train.jsonl, train.jsonl nor such is "
                                    "in \"/none\""));
    close_config(state);
    touch("train.jsonl");
    touch("test.jsonl");
    touch("math_oai_test.jsonl");
    snprintf(expected, sizeof expected, "?data.folder=%s", folder); /* as $TINYLORA_DATA comes */
    const char *const fallback[] = {expected};
    assert_int_equal(read_text("{\"model\": \"m\", \"data\": {\"task\": \"gsm8k\", \"answer\": "
                               "\"own\"}}",
                               fallback, 1),
                     STATUS_OK);
    spec = config->base;
    assert_int_equal(config_settle(config, &spec, &error), STATUS_OK);
    snprintf(expected, sizeof expected, "%s/train.jsonl", folder);
    assert_string_equal(spec.data.train, expected);
    snprintf(expected, sizeof expected, "%s/test.jsonl", folder);
    assert_string_equal(spec.data.eval, expected);
    assert_string_equal(spec.data.template, "Question: {question}\nAnswer:");
    assert_string_equal(spec.data.answer, "own"); /* what is given stays */
    assert_string_equal(spec.reward[0].extractor, "flexible");
    close_config(state);
    /* no training rows of its own, and a reward that was given */
    snprintf(expected, sizeof expected, "data.folder=%s", folder);
    const char *const given[] = {expected, "?data.folder=/none", "data.train=t.jsonl"};
    assert_int_equal(read_text("{\"model\": \"m\", \"data\": {\"task\": \"math500\"}, \"reward\": "
                               "{\"name\": \"format\", \"extractor\": \"verl\"}}",
                               given, 3),
                     STATUS_OK);
    spec = config->base;
    assert_int_equal(config_settle(config, &spec, &error), STATUS_OK);
    assert_string_equal(spec.data.question, "problem");
    assert_string_equal(spec.reward[0].name, "format");
    assert_string_equal(spec.reward[0].extractor, "verl_strict");
    assert_non_null(strstr(spec.data.eval, "/math_oai_test.jsonl"));
    drop("train.jsonl");
    drop("test.jsonl");
    drop("math_oai_test.jsonl");
    close_config(state);
    message = refusal("{\"model\": \"m\", \"data\": {\"task\": \"gsm9k\"}}");
    assert_non_null(strstr(message, "the nearest is \"gsm8k\""));
}

/* INTERFACE's example, as it stands there. */
static const char example[] =
    "{\n"
    "  \"experiment\": \"budget13-lr\",\n"
    "  \"model\": \"abacus\",\n"
    "  \"adapter\": { \"method\": \"tinylora\", \"budget\": 13, \"rank\": 2, \"tie\": \"tiled\", "
    "\"seed\": 13,\n"
    "               \"targets\": [\"q_proj\", \"k_proj\", \"v_proj\", \"o_proj\", \"gate_proj\", "
    "\"up_proj\", "
    "\"down_proj\"] },\n"
    "  \"data\":  { \"train\": \"train.jsonl\", \"eval\": \"test.jsonl\", \"question\": "
    "\"question\", \"answer\": "
    "\"answer\", \"template\": \"plain\" },\n"
    "  \"method\": \"grpo\",\n"
    "  \"reward\": { \"name\": \"exact_match\", \"extractor\": \"flexible\" },\n"
    "  \"grpo\":  { \"prompts_per_step\": 8, \"group_size\": 8, \"max_new_tokens\": 128, "
    "\"temperature\": 1.0,\n"
    "             \"loss\": \"dr_grpo\", \"clip_low\": 0.2, \"clip_high\": 0.28, \"kl_beta\": 0.0, "
    "\"updates_per_batch\": 1 },\n"
    "  \"optimizer\": { \"name\": \"adamw\", \"lr\": 2e-4, \"schedule\": \"constant\", "
    "\"grad_clip\": 1.0 },\n"
    "  \"steps\": 100, \"seed\": 1,\n"
    "  \"eval\": { \"every\": 25, \"rows\": 256 },\n"
    "  \"sweep\": { \"optimizer.lr\": [1e-7, 5e-7, 1e-6, 5e-6, 1e-5, 1e-4, 2e-4], \"seed\": [1, 2, "
    "3] }\n"
    "}\n";

static void the_example_of_the_interface_is_read(void **state)
{
    (void)state;
    assert_int_equal(read_text(example, NULL, 0), STATUS_OK);
    const RunSpec *spec = &config->base;
    assert_string_equal(spec->experiment, "budget13-lr");
    assert_int_equal(spec->adapter.targets, 127);
    assert_int_equal(spec->grpo.max_new_tokens, 128);
    assert_true(spec->grpo.clip_high == 0.28);
    assert_true(spec->optimizer.lr == 2e-4);
    assert_int_equal(spec->eval.rows, 256);
    assert_int_equal(config->n_grids, 1);
    assert_int_equal(config->grids[0].n_axes, 2);
    char train[256];
    snprintf(train, sizeof train, "%s/train.jsonl", folder);
    assert_string_equal(spec->data.train, train); /* relative to the config's folder */
}

static void the_grid_is_the_product_in_order_with_the_last_axis_fastest(void **state)
{
    (void)state;
    size_t n;
    RunSpec spec;
    assert_int_equal(read_text(example, NULL, 0), STATUS_OK);
    assert_int_equal(grid_count(&n, config, &error), STATUS_OK);
    assert_int_equal(n, 21);
    static const double rates[] = {1e-7, 5e-7, 1e-6, 5e-6, 1e-5, 1e-4, 2e-4};
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(grid_cell(&spec, config, i, &error), STATUS_OK);
        assert_true(spec.optimizer.lr == rates[i / 3]);
        assert_int_equal(spec.seed, 1 + i % 3);
    }
    Text label = {0};
    grid_label(config, &spec, n - 1, &label);
    assert_string_equal(text_string(&label), "optimizer.lr=0.0002 seed=3");
    text_release(&label);
}

/* Points that want other rates each: grids one after the other, with whole adapters as values. */
static const char points[] =
    "{" REQUIRED ", \"adapter\": {\"rank\": 4},\n"
    " \"sweep\": [{\"adapter\": [{\"budget\": 2}, {\"budget\": 7, \"rank\": 3}], "
    "\"optimizer.lr\": [0.31, 0.127]},\n"
    "  {\"adapter\": [{\"method\": \"lora\", \"alpha\": 16}], \"seed\": [5, 6, 7]},\n"
    "  {\"reward\": [{\"name\": \"none\"}, [{\"name\": \"regex\", \"pattern\": \"a\"}, "
    "{\"name\": \"none\"}]]}]}";

static void a_list_of_grids_has_the_cells_of_one_after_the_other(void **state)
{
    (void)state;
    size_t n;
    RunSpec spec;
    Text label = {0};
    assert_int_equal(read_text(points, NULL, 0), STATUS_OK);
    assert_true(config_is_sweep(config));
    assert_int_equal(grid_count(&n, config, &error), STATUS_OK);
    assert_int_equal(n, 4 + 3 + 2);
    assert_int_equal(grid_cell(&spec, config, 1, &error), STATUS_OK);
    assert_int_equal(spec.adapter.budget, 2);
    assert_int_equal(spec.adapter.rank, 4); /* what a value does not name stays the config's */
    assert_true(spec.optimizer.lr == 0.127);
    assert_int_equal(grid_cell(&spec, config, 2, &error), STATUS_OK);
    assert_int_equal(spec.adapter.rank, 3);
    assert_true(spec.optimizer.lr == 0.31);
    grid_label(config, &spec, 2, &label);
    assert_string_equal(text_string(&label),
                        "adapter={\"budget\": 7, \"rank\": 3} optimizer.lr=0.31");
    text_clear(&label);
    assert_int_equal(grid_cell(&spec, config, 6, &error), STATUS_OK);
    assert_string_equal(spec.adapter.method, "lora");
    assert_true(spec.adapter.alpha == 16);
    assert_int_equal(spec.seed, 7);
    grid_label(config, &spec, 6, &label);
    assert_string_equal(text_string(&label),
                        "adapter={\"method\": \"lora\", \"alpha\": 16} seed=7");
    assert_int_equal(grid_cell(&spec, config, 7, &error), STATUS_OK);
    assert_string_equal(spec.reward[0].name, "none");
    assert_int_equal(grid_cell(&spec, config, 8, &error), STATUS_OK);
    assert_int_equal(spec.n_rewards, 2);
    assert_string_equal(spec.reward[0].pattern, "a");
    text_release(&label);
}

static void grids_are_shown_and_read_again_and_overridden_together(void **state)
{
    (void)state;
    size_t n;
    RunSpec spec;
    Text first = {0}, second = {0};
    const char *overrides[] = {"sweep.seed=[8, 9]"};
    assert_int_equal(read_text(points, NULL, 0), STATUS_OK);
    config_show(&config->base, config, &first);
    config_free(config);
    assert_int_equal(read_text(text_string(&first), NULL, 0), STATUS_OK);
    assert_int_equal(config->n_grids, 3);
    config_show(&config->base, config, &second);
    assert_string_equal(text_string(&first), text_string(&second));
    config_free(config);
    assert_int_equal(read_text(points, overrides, 1), STATUS_OK);
    assert_int_equal(grid_count(&n, config, &error), STATUS_OK);
    assert_int_equal(n, 4 * 2 + 2 + 2 * 2);
    assert_int_equal(grid_cell(&spec, config, 9, &error), STATUS_OK);
    assert_int_equal(spec.seed, 9);
    text_release(&first);
    text_release(&second);
}

static void a_grid_that_is_none_is_refused_with_its_place(void **state)
{
    (void)state;
    assert_string_equal(refusal("{" REQUIRED ", \"sweep\": [{\"seed\": [1]},\n 3]}"),
                        "\" line 2: sweep: a number where an object is expected");
    RunSpec spec;
    assert_int_equal(
        read_text("{" REQUIRED ", \"sweep\": {\"adapter\": [{\"bugdet\": 3}]}}", NULL, 0),
        STATUS_OK);
    assert_int_equal(grid_cell(&spec, config, 0, &error), STATUS_USAGE);
    assert_non_null(strstr(error.message, "adapter.bugdet: unknown key; the nearest known one is "
                                          "\"adapter.budget\""));
    config_free(config);
    assert_int_equal(read_text("{" REQUIRED ", \"sweep\": {\"adapter\": [3]}}", NULL, 0),
                     STATUS_OK);
    assert_int_equal(grid_cell(&spec, config, 0, &error), STATUS_USAGE);
    assert_non_null(strstr(error.message, "adapter: a number where an object is expected"));
}

static void what_config_show_prints_is_read_as_the_same_settings(void **state)
{
    (void)state;
    Text first = {0}, second = {0};
    const char *overrides[] = {"grpo.clip_high=0.31",
                               "reward=[{\"name\": \"regex\", \"pattern\": \"a\\\"b\"}, "
                               "{\"name\": \"none\", \"weight\": -1.27}]"};
    assert_int_equal(read_text(example, overrides, 2), STATUS_OK);
    config_show(&config->base, config, &first);
    config_free(config);
    assert_int_equal(read_text(text_string(&first), NULL, 0), STATUS_OK);
    assert_int_equal(config->base.n_rewards, 2);
    assert_true(config->base.reward[1].weight == -1.27);
    config_show(&config->base, config, &second);
    assert_string_equal(text_string(&first), text_string(&second));
    text_release(&first);
    text_release(&second);
}

static void overrides_replace_values_and_axes(void **state)
{
    (void)state;
    size_t n;
    const char *overrides[] = {"optimizer.lr=1e-3", "experiment=mine", "sweep.seed=[4, 5]",
                               "eval.greedy=true", "data.template={question}\nA:"};
    assert_int_equal(read_text(example, overrides, 5), STATUS_OK);
    assert_string_equal(config->base.experiment, "mine");
    assert_string_equal(config->base.data.template, "{question}\nA:");
    assert_true(config->base.eval.greedy);
    assert_true(config->base.optimizer.lr == 1e-3);
    assert_int_equal(grid_count(&n, config, &error), STATUS_OK);
    assert_int_equal(n, 14);
}

static void an_unknown_key_is_refused_with_its_line_its_path_and_the_nearest_known_one(void **state)
{
    (void)state;
    assert_string_equal(
        refusal("{" REQUIRED ",\n \"grpo\": {\n \"group_sise\": 8}}"),
        "\" line 3: grpo.group_sise: unknown key; the nearest known one is \"grpo.group_size\"");
    assert_string_equal(refusal("{" REQUIRED ", \"stepz\": 8}"),
                        "\" line 1: stepz: unknown key; the nearest known one is \"steps\"");
    assert_string_equal(
        refusal("{" REQUIRED ", \"sweep\": {\"optimiser.lr\": [1]}}"),
        "\" line 1: optimiser.lr: unknown key; the nearest known one is \"optimizer.lr\"");
}

static void a_duplicate_key_is_refused(void **state)
{
    (void)state;
    const char *message = refusal("{" REQUIRED ", \"steps\": 8, \"steps\": 9}");
    assert_non_null(strstr(message, "steps"));
}

static void ill_typed_values_are_refused(void **state)
{
    (void)state;
    assert_non_null(
        strstr(refusal("{\"steps\": \"8\"}"), "steps: a string where a whole number is expected"));
    assert_non_null(
        strstr(refusal("{\"steps\": 1.5}"), "steps: 1.5 where a whole number is expected"));
    assert_non_null(strstr(refusal("{\"steps\": true}"), "where a whole number is expected"));
    assert_non_null(strstr(refusal("{\"grpo\": 3}"), "grpo: a number where an object is expected"));
    assert_non_null(strstr(refusal("{\"model\": [\"a\"]}"), "model: "));
    assert_non_null(strstr(refusal("{\"sweep\": {\"seed\": 3}}"), "sweep.seed: "));
    assert_non_null(strstr(refusal("{\"sweep\": {\"seed\": []}}"), "sweep.seed: an empty list"));
    assert_non_null(strstr(refusal("{\"eval\": {\"greedy\": 1}}"),
                           "eval.greedy: a number where true or false"));
    assert_non_null(strstr(refusal("[]"), "where an object is expected"));
    assert_non_null(refusal("{\"steps\": 8} x"));
}

static void values_out_of_range_are_refused(void **state)
{
    (void)state;
    assert_non_null(strstr(refusal("{\"grpo\": {\"temperature\": 0}}"),
                           "grpo.temperature: 0 is out of range (more than 0, at most 100)"));
    assert_non_null(strstr(refusal("{\"steps\": -1}"),
                           "steps: -1 is out of range (at least 0, at most 10000000)"));
    assert_non_null(strstr(refusal("{\"optimizer\": {\"lr\": 1e999}}"),
                           "optimizer.lr: 1e999 is not a finite number"));
    assert_non_null(
        strstr(refusal("{\"seed\": 9007199254740993}"), "seed: 9007199254740993 is out of range"));
}

static void unknown_words_are_refused_with_the_nearest_known_one(void **state)
{
    (void)state;
    assert_non_null(strstr(
        refusal("{\"grpo\": {\"loss\": \"drgrpo\"}}"),
        "grpo.loss: \"drgrpo\" is not one of grpo|dr_grpo|dapo|bnpo|gspo|cispo|reinforce; the "
        "nearest is \"dr_grpo\""));
    assert_non_null(
        strstr(refusal("{\"adapter\": {\"targets\": [\"q_prof\"]}}"),
               "adapter.targets: \"q_prof\" is not a linear layer; the nearest is \"q_proj\""));
    assert_non_null(strstr(refusal("{\"adapter\": {\"targets\": [\"q_proj\", \"q_proj\"]}}"),
                           "is there twice"));
    assert_non_null(
        strstr(settle_refusal("{" REQUIRED ", \"reward\": {\"name\": \"regexp\"}}"),
               "reward.name: unknown reward \"regexp\"; the nearest known one is \"regex\""));
    assert_non_null(strstr(
        settle_refusal("{" REQUIRED ", \"reward\": {\"extractor\": \"stric\"}}"),
        "reward.extractor: unknown extractor \"stric\"; the nearest known one is \"strict\""));
}

static void what_must_be_given_is_asked_for(void **state)
{
    (void)state;
    assert_string_equal(settle_refusal("{\"data\": {\"train\": \"t\"}}"),
                        "\": model: must be given");
    assert_string_equal(settle_refusal("{\"model\": \"m\"}"), "\": data.train: must be given");
    assert_string_equal(settle_refusal("{" REQUIRED ", \"reward\": {\"name\": \"regex\"}}"),
                        "\": reward.pattern: must be given for the reward regex");
    assert_string_equal(settle_refusal("{" REQUIRED ", \"grpo\": {\"group_size\": 1}}"),
                        "\": grpo.group_size: 1 leaves nothing to compare with; at least 2");
    assert_string_equal(
        settle_refusal("{" REQUIRED ", \"adapter\": {\"budget\": 13, \"u\": 2, \"groups\": 6}}"),
        "\": adapter.budget: 13 is not adapter.u x adapter.groups, 12; leave one of the three out");
}

static void settings_of_grpo_that_would_do_nothing_are_refused(void **state)
{
    (void)state;
    assert_string_equal(settle_refusal("{" REQUIRED ", \"grpo\": {\"loss\": \"reinforce\", "
                                       "\"importance_sampling_level\": \"sequence\"}}"),
                        "\": grpo.importance_sampling_level: the loss reinforce has no ratios");
    assert_string_equal(
        settle_refusal("{" REQUIRED ", \"grpo\": {\"loss\": \"cispo\", \"delta\": 2}}"),
        "\": grpo.delta: the losses reinforce and cispo do not use it");
    assert_string_equal(settle_refusal("{" REQUIRED ", \"grpo\": {\"importance_sampling_mode\": "
                                       "\"token_mask\"}}"),
                        "\": grpo.importance_sampling_mode: grpo.rollout is exact, so that there "
                        "is nothing to correct");
}

/* Settings that came later are not in the identity of a run that does not use them. */
static void later_settings_of_grpo_leave_old_identities_alone(void **state)
{
    (void)state;
    RunSpec spec;
    Text identity = {0};
    assert_int_equal(read_text("{" REQUIRED "}", NULL, 0), STATUS_OK);
    spec = config->base;
    assert_int_equal(config_settle(config, &spec, &error), STATUS_OK);
    identity_members(&identity, &spec, NULL, 0);
    static const char *const old[] = {"prompts_per_step",
                                      "group_size",
                                      "max_new_tokens",
                                      "temperature",
                                      "top_p",
                                      "top_k",
                                      "loss",
                                      "scale_rewards",
                                      "clip_low",
                                      "clip_high",
                                      "kl_beta",
                                      "updates_per_batch"};
    size_t n = 0;
    for (const char *at = text_string(&identity); (at = strstr(at, "\"grpo.")); at++) {
        n++;
    }
    assert_int_equal(n, sizeof old / sizeof old[0]);
    for (size_t i = 0; i < sizeof old / sizeof old[0]; i++) {
        assert_non_null(strstr(text_string(&identity), old[i]));
    }
    text_clear(&identity);
    spec.grpo.min_p = 0.25;
    spec.grpo.repetition_penalty = 1.5;
    identity_members(&identity, &spec, NULL, 0);
    assert_non_null(strstr(text_string(&identity), "\"grpo.min_p\":0.25"));
    assert_non_null(strstr(text_string(&identity), "\"grpo.repetition_penalty\":1.5"));
    text_clear(&identity);
    strcpy(spec.grpo.loss, "gspo");
    assert_int_equal(config_settle(config, &spec, &error), STATUS_OK);
    identity_members(&identity, &spec, NULL, 0);
    assert_non_null(
        strstr(text_string(&identity), "\"grpo.importance_sampling_level\":\"sequence\""));
    text_release(&identity);
}

static void a_bad_value_in_a_sweep_names_the_cell(void **state)
{
    (void)state;
    RunSpec spec;
    assert_int_equal(read_text("{" REQUIRED ", \"sweep\": {\"steps\": [3, \"x\"]}}", NULL, 0),
                     STATUS_OK);
    assert_int_equal(grid_cell(&spec, config, 0, &error), STATUS_OK);
    assert_int_equal(grid_cell(&spec, config, 1, &error), STATUS_USAGE);
    assert_non_null(strstr(error.message, "steps: a string where a whole number is expected"));
}

static void bad_overrides_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *override, *message;
    } cases[] = {
        {"steps", "--set \"steps\": key.path=value is expected"},
        {"steps=abc", "--set steps: "},
        {"stepz=3", "stepz: unknown key; the nearest known one is \"steps\""},
        {"grpo.loss=ppo", "grpo.loss: \"ppo\" is not one of"},
        {"sweep.seed=3", "sweep.seed: a number where a list of values is expected"},
        {"reward.1.name=none", "there are only 1 rewards"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(read_text("{" REQUIRED "}", &cases[i].override, 1), STATUS_USAGE);
        if (!strstr(error.message, cases[i].message)) {
            print_error("%s\n", error.message);
            fail();
        }
    }
}

static void auto_and_zero_are_settled(void **state)
{
    (void)state;
    RunSpec spec;
    assert_int_equal(read_text("{" REQUIRED "}", NULL, 0), STATUS_OK);
    spec = config->base;
    assert_string_equal(spec.experiment, "c"); /* the file's own name */
    assert_int_equal(config_settle(config, &spec, &error), STATUS_OK);
    assert_string_equal(spec.grpo.scale_rewards, "none"); /* dr_grpo */
    assert_int_equal(spec.adapter.budget, 13);
    assert_int_equal(spec.eval.max_new_tokens, spec.grpo.max_new_tokens);
    spec = config->base;
    strcpy(spec.grpo.loss, "grpo");
    spec.adapter.u = 3;
    spec.adapter.groups = 5;
    assert_int_equal(config_settle(config, &spec, &error), STATUS_OK);
    assert_string_equal(spec.grpo.scale_rewards, "group");
    assert_int_equal(spec.adapter.budget, 15);
}

static void run_id_of(char run_id[RUN_ID_SIZE], const RunSpec *spec, const IdentityInputs *inputs)
{
    Text identity = {0};
    identity_json(&identity, spec, inputs);
    identity_run_id(run_id, &identity);
    text_release(&identity);
}

/* Every setting of the table is bent in turn: the run_id changes if and only if a number could. */
static void every_setting_that_changes_a_number_changes_the_run_id(void **state)
{
    (void)state;
    const IdentityInputs inputs = {"c", "g", "w", "t", "d", "h"};
    char before[RUN_ID_SIZE], after[RUN_ID_SIZE];
    RunSpec spec;
    assert_int_equal(read_text(example, NULL, 0), STATUS_OK);
    spec = config->base;
    assert_int_equal(config_settle(config, &spec, &error), STATUS_OK);
    run_id_of(before, &spec, &inputs);
    for (size_t i = 0; i < settings_count(); i++) {
        const Setting *setting = setting_at(i);
        RunSpec bent = spec;
        setting_field(&bent, setting, 0)[0] ^= 1;
        bool counts = setting_applies(&spec, setting) && !(setting->flags & SETTING_NO_NUMBERS);
        if (strcmp(setting->path, "method") == 0) {
            counts = true;
        }
        run_id_of(after, &bent, &inputs);
        if ((strcmp(before, after) != 0) != counts) {
            print_error("%s\n", setting->path);
            fail();
        }
    }
}

/* Of every reward of a list, also of settings that are in the identity only where they are given.
 */
static void settings_of_a_second_reward_change_the_run_id(void **state)
{
    (void)state;
    const IdentityInputs inputs = {"c", "g", "w", "t", "d", "h"};
    static const char *const changes[] = {"reward.1.length=7", "reward.1.command=\"false\"",
                                          "reward.1.timeout_s=3", "reward.1.weight=0.5"};
    char ids[5][RUN_ID_SIZE];
    for (int i = 0; i < 5; i++) {
        const char *const overrides[] = {
            "reward=[{\"name\": \"length\"}, {\"name\": \"command\", \"command\": \"true\"}]",
            i ? changes[i - 1] : "seed=1"};
        assert_int_equal(read_text("{" REQUIRED ", \"seed\": 1}", overrides, 2), STATUS_OK);
        RunSpec spec = config->base;
        assert_int_equal(config_settle(config, &spec, &error), STATUS_OK);
        run_id_of(ids[i], &spec, &inputs);
        for (int j = 0; j < i; j++) {
            assert_string_not_equal(ids[i], ids[j]);
        }
        close_config(state);
    }
}

static void hashes_of_the_inputs_and_close_learning_rates_change_the_run_id(void **state)
{
    (void)state;
    const char *base[] = {"c", "g", "w", "t", "d", "h"};
    char before[RUN_ID_SIZE], after[RUN_ID_SIZE];
    RunSpec spec;
    assert_int_equal(read_text(example, NULL, 0), STATUS_OK);
    spec = config->base;
    for (int i = 0; i < 6; i++) {
        const char *names[6];
        memcpy(names, base, sizeof names);
        names[i] = "x";
        IdentityInputs one = {base[0], base[1], base[2], base[3], base[4], base[5]};
        IdentityInputs other = {names[0], names[1], names[2], names[3], names[4], names[5]};
        run_id_of(before, &spec, &one);
        run_id_of(after, &spec, &other);
        assert_string_not_equal(before, after);
    }
    IdentityInputs inputs = {"c", "g", "w", "t", "d", "h"};
    spec.optimizer.lr = 1e-6;
    run_id_of(before, &spec, &inputs);
    spec.optimizer.lr = 1.04e-6;
    run_id_of(after, &spec, &inputs);
    assert_string_not_equal(before, after);
    spec.optimizer.lr = 1e-6;
    run_id_of(after, &spec, &inputs);
    assert_string_equal(before, after);
    assert_int_equal(strlen(before), 16);
}

static void the_nearest_name_ignores_case_and_takes_the_first_of_equals(void **state)
{
    (void)state;
    const char *const names[] = {"alpha", "beta", "zeta"};
    assert_string_equal(nearest_name("BETA", names, 3), "beta");
    assert_string_equal(nearest_name("eta", names, 3), "beta");
    assert_null(nearest_name("x", names, 0));
}

static void a_model_is_a_directory_or_a_name_in_the_folders(void **state)
{
    (void)state;
    char directory[CONFIG_PATH], models[64];
    snprintf(models, sizeof models, "/nowhere:%s", "/tmp");
    assert_int_equal(model_find(directory, folder, models, &error), STATUS_OK);
    assert_string_equal(directory, folder);
    assert_int_equal(model_find(directory, folder + 5, models, &error), STATUS_OK);
    assert_string_equal(directory, folder);
    assert_int_equal(model_find(directory, "no-such-model", models, &error), STATUS_REFUSED);
    assert_non_null(strstr(error.message, "model \"no-such-model\": no such directory"));
    /* A merged GGUF model is the file in its folder; a folder with a config.json is itself. */
    char gguf[FILE_PATH_MAX], json[FILE_PATH_MAX];
    assert_int_equal(path_join(gguf, folder, "model.gguf", &error), STATUS_OK);
    assert_int_equal(path_join(json, folder, "config.json", &error), STATUS_OK);
    assert_int_equal(file_write(gguf, "", 0, &error), STATUS_OK);
    assert_int_equal(model_find(directory, folder, models, &error), STATUS_OK);
    assert_string_equal(directory, gguf);
    assert_int_equal(file_write(json, "", 0, &error), STATUS_OK);
    assert_int_equal(model_find(directory, folder, models, &error), STATUS_OK);
    assert_string_equal(directory, folder);
    unlink(gguf);
    unlink(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(the_example_of_the_interface_is_read, close_config),
        cmocka_unit_test_teardown(the_grid_is_the_product_in_order_with_the_last_axis_fastest,
                                  close_config),
        cmocka_unit_test_teardown(what_config_show_prints_is_read_as_the_same_settings,
                                  close_config),
        cmocka_unit_test_teardown(overrides_replace_values_and_axes, close_config),
        cmocka_unit_test_teardown(settings_of_a_second_reward_change_the_run_id, close_config),
        cmocka_unit_test_teardown(a_known_task_fills_in_what_was_not_given, close_config),
        cmocka_unit_test_teardown(a_list_of_grids_has_the_cells_of_one_after_the_other,
                                  close_config),
        cmocka_unit_test_teardown(grids_are_shown_and_read_again_and_overridden_together,
                                  close_config),
        cmocka_unit_test_teardown(a_grid_that_is_none_is_refused_with_its_place, close_config),
        cmocka_unit_test_teardown(
            an_unknown_key_is_refused_with_its_line_its_path_and_the_nearest_known_one,
            close_config),
        cmocka_unit_test_teardown(a_duplicate_key_is_refused, close_config),
        cmocka_unit_test_teardown(ill_typed_values_are_refused, close_config),
        cmocka_unit_test_teardown(values_out_of_range_are_refused, close_config),
        cmocka_unit_test_teardown(unknown_words_are_refused_with_the_nearest_known_one,
                                  close_config),
        cmocka_unit_test_teardown(what_must_be_given_is_asked_for, close_config),
        cmocka_unit_test_teardown(settings_of_grpo_that_would_do_nothing_are_refused, close_config),
        cmocka_unit_test_teardown(later_settings_of_grpo_leave_old_identities_alone, close_config),
        cmocka_unit_test_teardown(a_bad_value_in_a_sweep_names_the_cell, close_config),
        cmocka_unit_test_teardown(bad_overrides_are_refused, close_config),
        cmocka_unit_test_teardown(auto_and_zero_are_settled, close_config),
        cmocka_unit_test_teardown(every_setting_that_changes_a_number_changes_the_run_id,
                                  close_config),
        cmocka_unit_test_teardown(hashes_of_the_inputs_and_close_learning_rates_change_the_run_id,
                                  close_config),
        cmocka_unit_test_teardown(the_nearest_name_ignores_case_and_takes_the_first_of_equals,
                                  close_config),
        cmocka_unit_test_teardown(a_model_is_a_directory_or_a_name_in_the_folders, close_config),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
