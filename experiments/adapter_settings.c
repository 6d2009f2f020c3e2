/* A preset is a list of settings, put where none is given; then the rules. */
#include "experiments/adapter_settings.h"

#include <stdlib.h>
#include <string.h>

enum { RIVALS_RANK = 8 }; /* PEFT's; the table's default is TinyLoRA's */

typedef struct {
    const char *preset, *path, *value; /* JSON */
} PresetSetting;

/* reference/method.md 1.2, 1.4, 3.1, 3.2. What equals the defaults is left out but for what the
 * tool is known by. Random numbers are ours: theirs come from PyTorch's generator. */
static const PresetSetting presets[] = {
    {"paper", "adapter.rank", "2"},
    {"paper", "adapter.u", "1"},
    {"paper", "adapter.tie_factor", "16"},
    {"paper", "adapter.grouping", "\"chunks\""},
    {"peft", "adapter.rank", "2"},
    {"peft", "adapter.u", "64"},
    {"peft", "adapter.weight_tying", "0"},
    {"peft", "adapter.grouping", "\"floor\""},
    {"peft", "adapter.targets", "[\"q_proj\",\"v_proj\"]"},
    {"peft", "adapter.sigma", "\"sqrt\""},
    {"peft", "adapter.seed", "42"},
    {"anrgusc", "adapter.rank", "2"},
    {"anrgusc", "adapter.grouping", "\"chunks\""},
    {"anrgusc", "adapter.order", "\"layer-sorted\""},
    {"anrgusc", "adapter.alpha", "1"},
    {"anrgusc", "adapter.init", "\"normal\""},
    {"anrgusc", "adapter.init_size", "0.001"},
    {"anrgusc", "adapter.seed", "13"},
};

static bool is(const char *word, const char *other)
{
    return strcmp(word, other) == 0;
}

static bool given(const RunSpec *spec, const char *path)
{
    return *setting_given((RunSpec *)(uintptr_t)spec, path);
}

/* Does a given setting stand against a preset's? A budget or a number of groups against what would
 * choose them; a tie rule without chunks, and a way of cutting, against theirs; scale against
 * alpha. */
static bool overruled(const RunSpec *spec, const char *path)
{
    bool counted = given(spec, "adapter.budget") || given(spec, "adapter.groups");
    bool cut = is(spec->adapter.tie, "tiled") ||
               (is(spec->adapter.tie, "structured") && !is(path, "adapter.weight_tying"));
    if (is(path, "adapter.u")) {
        return given(spec, "adapter.budget");
    }
    if (is(path, "adapter.tie_factor") || is(path, "adapter.weight_tying")) {
        return counted || !cut || given(spec, "adapter.tie_factor") ||
               given(spec, "adapter.weight_tying") || given(spec, "adapter.grouping");
    }
    if (is(path, "adapter.grouping")) {
        return !cut;
    }
    if (is(path, "adapter.alpha")) {
        return given(spec, "adapter.scale");
    }
    if (is(path, "adapter.init_size")) {
        return given(spec, "adapter.init");
    }
    return false;
}

static void apply_preset(RunSpec *spec)
{
    RunSpec asked = *spec; /* what is given does not change while the preset is put in */
    for (size_t i = 0; i < sizeof presets / sizeof presets[0]; i++) {
        const PresetSetting *p = &presets[i];
        JsonDocument *document = NULL;
        int reward;
        if (!is(p->preset, spec->adapter.preset) || given(&asked, p->path) ||
            overruled(&asked, p->path) || json_parse(&document, p->value, strlen(p->value), NULL)) {
            continue;
        }
        setting_parse(spec, setting_find(p->path, &reward), 0, json_root(document), NULL);
        *setting_given(spec, p->path) = true;
        json_free(document);
    }
}

static Status rule(const char *key, Error *error, const char *message)
{
    return error_set(error, STATUS_USAGE, "%s: %s", key, message);
}

/* How groups are made: one way at a time. */
static Status check_ways(const RunSpec *spec, Error *error)
{
    const char *tie = spec->adapter.tie, *grouping = spec->adapter.grouping;
    bool tying = spec->adapter.weight_tying >= 0, factor = spec->adapter.tie_factor > 0;
    if (spec->adapter.weight_tying < 0 && spec->adapter.weight_tying > -1) {
        return rule("adapter.weight_tying", error, "from 0 to 1; -1: not used");
    }
    if (tying && factor) {
        return rule("adapter.weight_tying", error,
                    "it and adapter.tie_factor both make the groups; give one of them");
    }
    if (tying && (!is(tie, "tiled") || is(grouping, "chunks") || is(grouping, "balanced"))) {
        return rule("adapter.weight_tying", error,
                    "is PEFT's, which has adapter.tie tiled and adapter.grouping floor alone");
    }
    if (factor && ((!is(tie, "tiled") && !is(tie, "structured")) ||
                   (!is(grouping, "chunks") && !is(grouping, "auto")))) {
        return rule("adapter.tie_factor", error,
                    "cuts chunks of tie rule tiled or structured, not others");
    }
    if (is(tie, "map") && !spec->adapter.map[0]) {
        return rule("adapter.map", error, "must be given for the tie rule map");
    }
    if (!is(tie, "map") && spec->adapter.map[0]) {
        return rule("adapter.map", error, "is read by adapter.tie map alone");
    }
    return STATUS_OK;
}

/* Of the methods that have an s and start values. */
static Status check_numbers(RunSpec *spec, Error *error)
{
    if (spec->adapter.alpha > 0 && spec->adapter.scale != 1) {
        return rule("adapter.alpha", error, "it and adapter.scale both give s; give one of them");
    }
    bool zeros = is(spec->adapter.init, "zeros");
    if (zeros && spec->adapter.init_size > 0) {
        return rule("adapter.init_size", error, "has no meaning where adapter.init is zeros");
    }
    if (!zeros && spec->adapter.init_size == 0) {
        spec->adapter.init_size = is(spec->adapter.init, "normal") ? 0.001 : 0.02;
    }
    return STATUS_OK;
}

static Status check_counts(const RunSpec *spec, Error *error)
{
    if (given(spec, "adapter.u") && spec->adapter.u == 0) {
        return rule("adapter.u", error,
                    "0: a group has at least 1 scalar; without it the planner chooses");
    }
    if (given(spec, "adapter.groups") && spec->adapter.groups == 0) {
        return rule("adapter.groups", error,
                    "0: there is at least 1 group; without it the planner chooses");
    }
    return STATUS_OK;
}

/* Without a budget it is u x groups where those are known or will be, else 13. */
static Status settle_budget(RunSpec *spec, Error *error)
{
    bool counted = spec->adapter.tie_factor > 0 || spec->adapter.weight_tying >= 0 ||
                   is(spec->adapter.tie, "map");
    bool whole = is(spec->adapter.tie, "all") || is(spec->adapter.tie, "none");
    if (spec->adapter.u && spec->adapter.groups) {
        int64_t product = (int64_t)spec->adapter.u * spec->adapter.groups;
        if (spec->adapter.budget && spec->adapter.budget != product) {
            return error_set(
                error, STATUS_USAGE,
                "adapter.budget: %d is not adapter.u x adapter.groups, %lld; leave one "
                "of the three out",
                spec->adapter.budget, (long long)product);
        }
        if (product > 1000000000) {
            return rule("adapter.u", error, "u x groups is more than 1e9");
        }
        spec->adapter.budget = (int)product;
    } else if (spec->adapter.budget == 0 && !counted && !(whole && spec->adapter.u)) {
        spec->adapter.budget = 13;
    }
    return STATUS_OK;
}

Status adapter_settle(RunSpec *spec, Error *error)
{
    if (is(spec->adapter.method, "lora") || is(spec->adapter.method, "lora-xs")) {
        if (!given(spec, "adapter.rank")) {
            spec->adapter.rank = RIVALS_RANK;
        }
        return check_numbers(spec, error);
    }
    if (!is(spec->adapter.method, "tinylora")) {
        return STATUS_OK;
    }
    if (spec->adapter.map[0] && !given(spec, "adapter.tie")) {
        strcpy(spec->adapter.tie, "map");
    }
    apply_preset(spec);
    Status status = check_ways(spec, error);
    status = status ? status : check_counts(spec, error);
    status = status ? status : check_numbers(spec, error);
    return status ? status : settle_budget(spec, error);
}
