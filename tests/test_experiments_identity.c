/* What a run is: every setting that can change a number changes its id, every other one does not
 * and has its reason here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "core/random.h"
#include "experiments/config.h"
#include "experiments/identity.h"

static const IdentityInputs inputs = {"c", "g", "w", "t", "d", "h"};

/* Why a setting is not part of what a run is. */
static const struct {
    const char *path, *reason;
} without_numbers[] = {
    {"experiment", "a name for people"},
    {"epochs", "resolved into steps"},
    {"model", "its files are in by their hashes"},
    {"adapter.preset", "resolved into the other settings of adapter.*"},
    {"adapter.weight_tying", "resolved into adapter.groups"},
    {"adapter.map", "the file is in by adapter.map_sha256"},
    {"start_run", "its scalars are in by start_sha256"},
    {"data.task", "resolved into the other settings of data.* and reward"},
    {"data.folder", "the files are in by their hashes"},
    {"data.train", "the file is in by its hash"},
    {"data.dev", "the rows that give the objective are in by their hash"},
    {"data.eval", "the same"},
    {"engine.activation_checkpointing",
     "what is computed again has the bits of what was kept (test_adapters_keep)"},
    {"checkpoint.every", "which states are kept, not what they are"},
    {"checkpoint.keep", "the same"},
    {"stop.rule", "how far a run goes beside its neighbours, not what it computes"},
    {"stop.first", "the same"},
    {"stop.factor", "the same"},
};

/* Specs under which settings matter; each setting must matter under one of them. */
static const char *const specs[] = {
    "{}",
    "{\"method\": \"sft\"}",
    "{\"adapter\": {\"method\": \"lora\", \"alpha\": 4}}",
    "{\"adapter\": {\"method\": \"lora-xs\", \"alpha\": 4}}",
    "{\"adapter\": {\"method\": \"full\"}}",
    "{\"stop\": {\"entropy_below\": 0.5}}",
    "{\"engine\": {\"precision\": \"f16\"}}",
    "{\"method\": \"scan\", \"adapter\": {\"budget\": 2}, \"scan\": {\"values\": [\"loss\", "
    "\"accuracy\", \"reward\"]}}",
    "{\"method\": \"scan\", \"scan\": {\"directions\": \"axes\", \"run\": \"00\"}}",
    "{\"method\": \"scan\", \"scan\": {\"directions\": \"random\", \"run\": \"00\"}}",
    "{\"method\": \"scan\", \"scan\": {\"directions\": \"runs\", \"run\": \"00\", \"run_2\": "
    "\"11\"}}",
};
enum { N_SPECS = sizeof specs / sizeof specs[0] };

static void put(RunSpec *spec, const Json *object, const char *prefix)
{
    for (size_t i = 0; i < json_size(object); i++) {
        char path[128];
        int reward;
        Error error = {{0}};
        snprintf(path, sizeof path, "%s%s%s", prefix, *prefix ? "." : "", json_key(object, i));
        const Setting *setting = setting_find(path, &reward);
        if (!setting) {
            put(spec, json_at(object, i), path);
        } else if (setting_parse(spec, setting, reward, json_at(object, i), &error)) {
            fail_msg("%s: %s", path, error.message);
        }
    }
}

static void make_spec(RunSpec *spec, const char *json)
{
    JsonDocument *document = NULL;
    assert_int_equal(json_parse(&document, json, strlen(json), NULL), STATUS_OK);
    settings_default(spec);
    put(spec, json_root(document), "");
    json_free(document);
}

static void run_id_of(char run_id[RUN_ID_SIZE], const RunSpec *spec)
{
    Text identity = {0};
    identity_json(&identity, spec, &inputs);
    identity_run_id(run_id, &identity);
    text_release(&identity);
}

/* A value that a setting may have, as JSON, drawn by i. */
static void draw_value(Text *out, const Setting *setting, uint32_t i, RandomKey key)
{
    uint32_t words[4];
    random_words(words, key, i, 0, 0, 0);
    double unit = words[0] / 4294967296.0;
    switch (setting->kind) {
    case SETTING_TEXT:
    case SETTING_PATH:
    case SETTING_MODEL:
        text_printf(out, "\"%s%u\"", strcmp(setting->path, "adapter.map_sha256") ? "text" : "",
                    words[1]);
        break;
    case SETTING_CHOICE:
    case SETTING_WORDS: {
        size_t n = 1;
        for (const char *at = setting->choices; *at; at++) {
            n += *at == '|';
        }
        const char *word = setting->choices;
        for (size_t skip = words[1] % n; skip > 0; skip--) {
            word = strchr(word, '|') + 1;
        }
        const char *list = setting->kind == SETTING_WORDS ? "[" : "";
        text_printf(out, "%s\"%.*s\"%s", list, (int)strcspn(word, "|"), word, *list ? "]" : "");
        break;
    }
    case SETTING_INTEGER:
    case SETTING_SEED: {
        double most = setting->max < 1e6 ? setting->max : 1e6;
        text_printf(out, "%.0f", setting->min + unit * (most - setting->min));
        break;
    }
    case SETTING_NUMBER: {
        double least = setting->min < -10 ? -10 : setting->min;
        double most = setting->max > 10 ? 10 : setting->max;
        shortest_number(out, least + (unit + 1e-9) * (most - least) * 0.999);
        break;
    }
    case SETTING_SWITCH:
        text_add(out, words[1] & 1 ? "true" : "false");
        break;
    case SETTING_TARGETS:
        text_add(out, words[1] & 1 ? "[\"q_proj\"]" : "[\"v_proj\", \"o_proj\"]");
        break;
    }
}

/* Another value than the spec's own; false where none was drawn. */
static bool change(RunSpec *changed, const RunSpec *spec, const Setting *setting, uint32_t *i,
                   RandomKey key)
{
    Text before = {0};
    bool other = false;
    setting_value_json(spec, setting, 0, &before);
    for (int trial = 0; trial < 40 && !other; trial++) {
        Text drawn = {0}, after = {0};
        JsonDocument *document = NULL;
        draw_value(&drawn, setting, (*i)++, key);
        *changed = *spec;
        if (json_parse(&document, text_string(&drawn), drawn.n, NULL) == STATUS_OK &&
            setting_parse(changed, setting, 0, json_root(document), NULL) == STATUS_OK) {
            setting_value_json(changed, setting, 0, &after);
            other = strcmp(text_string(&before), text_string(&after)) != 0;
        }
        json_free(document);
        text_release(&drawn);
        text_release(&after);
    }
    text_release(&before);
    return other;
}

static void another_value_of_any_setting_is_another_run(void **state)
{
    (void)state;
    const uint64_t seed = 20261128;
    uint32_t draws = 0;
    print_message("seed %llu\n", (unsigned long long)seed);
    for (size_t i = 0; i < settings_count(); i++) {
        const Setting *setting = setting_at(i);
        int n_mattered = 0;
        for (int k = 0; k < N_SPECS; k++) {
            RunSpec spec, changed;
            char before[RUN_ID_SIZE], after[RUN_ID_SIZE];
            make_spec(&spec, specs[k]);
            run_id_of(before, &spec);
            for (int trial = 0; trial < 5; trial++) {
                if (!change(&changed, &spec, setting, &draws, (RandomKey){seed, 1})) {
                    fail_msg("%s: no other value was drawn", setting->path);
                }
                run_id_of(after, &changed);
                bool differs = strcmp(before, after) != 0;
                bool numbers = !(setting->flags & SETTING_NO_NUMBERS);
                bool matters = numbers && (setting_applies(&spec, setting) ||
                                           setting_applies(&changed, setting));
                n_mattered += differs;
                if (differs != matters) {
                    fail_msg("%s under %s: the run_id %s", setting->path, specs[k],
                             differs ? "changed" : "did not change");
                }
            }
        }
        if ((n_mattered > 0) == !!(setting->flags & SETTING_NO_NUMBERS)) {
            fail_msg("%s: it changed %d run_ids", setting->path, n_mattered);
        }
    }
}

static void what_is_not_part_of_a_run_has_its_reason(void **state)
{
    (void)state;
    size_t n = 0, n_listed = sizeof without_numbers / sizeof without_numbers[0];
    for (size_t i = 0; i < settings_count(); i++) {
        const Setting *setting = setting_at(i);
        if (!(setting->flags & SETTING_NO_NUMBERS)) {
            continue;
        }
        size_t at = 0;
        while (at < n_listed && strcmp(without_numbers[at].path, setting->path) != 0) {
            at++;
        }
        if (at == n_listed) {
            fail_msg("%s has no reason", setting->path);
        }
        n++;
    }
    assert_int_equal(n, n_listed);
}

static void another_file_or_numerics_is_another_run(void **state)
{
    (void)state;
    RunSpec spec;
    settings_default(&spec);
    const char *const *fields = (const char *const *)&inputs;
    char before[RUN_ID_SIZE], after[RUN_ID_SIZE];
    run_id_of(before, &spec);
    for (size_t i = 0; i < sizeof inputs / sizeof *fields; i++) {
        IdentityInputs changed = inputs;
        ((const char **)&changed)[i] = "other";
        Text identity = {0};
        identity_json(&identity, &spec, &changed);
        identity_run_id(after, &identity);
        assert_string_not_equal(before, after);
        text_release(&identity);
    }
}

static void a_chat_templates_words_are_in_the_run(void **state)
{
    (void)state;
    static const char *const templates[] = {"plain", "{question}", "qwen2.5", "llama3"};
    for (size_t i = 0; i < 4; i++) {
        RunSpec spec;
        Text identity = {0}, json = {0};
        text_printf(&json, "{ \"data\": { \"template\": \"%s\" } }", templates[i]);
        make_spec(&spec, text_string(&json));
        identity_json(&identity, &spec, &inputs);
        const char *hash = strstr(text_string(&identity), "\"data.template_sha256\":");
        assert_true((hash != NULL) == (i >= 2)); /* others are in the identity themselves */
        if (i == 2) {                            /* of the rendered "{question}", by sha256sum */
            assert_memory_equal(hash + 24, "5f2730d108eb7c51", 16);
        }
        text_release(&identity);
        text_release(&json);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(another_value_of_any_setting_is_another_run),
        cmocka_unit_test(what_is_not_part_of_a_run_has_its_reason),
        cmocka_unit_test(another_file_or_numerics_is_another_run),
        cmocka_unit_test(a_chat_templates_words_are_in_the_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
