/* Walks a config's JSON against the table of settings. Every refusal names file, line, key path and
 * rule. */
#include "experiments/config_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/file.h"
#include "core/hub.h"
#include "core/model_config.h"
#include "experiments/adapter_settings.h"
#include "experiments/known_task.h"
#include "experiments/nearest.h"
#include "experiments/scan_settings.h"
#include "rl/extract.h"
#include "rl/reward.h"

enum { CONFIG_BYTES = 1 << 20, MAX_PATH_KEYS = 128 };

/* What values are put into, and where they were written: in the file, or in an override. */
typedef struct {
    Config *config;
    RunSpec *spec; /* the config's base, or a cell's */
    bool from_override;
} Reader;

Status config_at_place(const Config *config, const Json *value, const char *key, Status status,
                       Error *error)
{
    int line = json_line(value);
    if (line > 0) {
        return error_context(error, status, "config \"%s\" line %d: %s", config->path, line, key);
    }
    return error_context(error, status, "config \"%s\": %s", config->path, key);
}

Status config_unknown_key(const Config *config, const Json *value, const char *key, Error *error)
{
    const char *known[MAX_PATH_KEYS];
    size_t n = 0;
    for (size_t i = 0; i < settings_count(); i++) {
        known[n++] = setting_at(i)->path;
    }
    known[n++] = "sweep";
    error_set(error, STATUS_USAGE, "unknown key; the nearest known one is \"%s\"",
              nearest_name(key, known, n));
    return config_at_place(config, value, key, STATUS_USAGE, error);
}

bool config_is_group(const char *path)
{
    size_t n = strlen(path);
    for (size_t i = 0; i < settings_count(); i++) {
        const char *known = setting_at(i)->path;
        if (strncmp(known, path, n) == 0 && known[n] == '.') {
            return true;
        }
    }
    return false;
}

static bool exists(const char *path)
{
    return access(path, F_OK) == 0;
}

static Status join(char out[CONFIG_PATH], const char *folder, const char *path, Error *error)
{
    int n = strcmp(folder, ".") == 0 ? snprintf(out, CONFIG_PATH, "%s", path)
                                     : snprintf(out, CONFIG_PATH, "%s/%s", folder, path);
    if (n >= CONFIG_PATH) {
        return error_set(error, STATUS_USAGE, "path longer than %d bytes", CONFIG_PATH - 1);
    }
    return STATUS_OK;
}

/* Paths are kept relative to the config's folder; an override may also name what lies in the
 * working directory. */
static Status place_path(const Config *config, const Setting *setting, char *field,
                         bool from_override, Error *error)
{
    char inside[CONFIG_PATH];
    if (!field[0] || field[0] == '/') {
        return STATUS_OK;
    }
    Status status = join(inside, config->folder, field, error);
    /* Of an embedded model, or of one in Hugging Face's cache? */
    bool name = setting->kind == SETTING_MODEL && (!strchr(field, '/') || hub_is_name(field));
    if (status || (name && !exists(inside)) ||
        (from_override && !exists(inside) && exists(field))) {
        return status;
    }
    memcpy(field, inside, strlen(inside) + 1);
    return STATUS_OK;
}

static Status apply(const Config *config, RunSpec *spec, const char *path, const Json *value,
                    bool from_override, Error *error)
{
    int reward;
    const Setting *setting = setting_find(path, &reward);
    if (!setting) {
        if (config_is_group(path)) {
            error_set(error, STATUS_USAGE, "%s where an object is expected",
                      json_kind_name(json_kind(value)));
            return config_at_place(config, value, path, STATUS_USAGE, error);
        }
        return config_unknown_key(config, value, path, error);
    }
    if (reward >= spec->n_rewards) {
        error_set(error, STATUS_USAGE, "there are only %d rewards", spec->n_rewards);
        return config_at_place(config, value, path, STATUS_USAGE, error);
    }
    Status status = setting_parse(spec, setting, reward, value, error);
    if (!status && (setting->kind == SETTING_PATH || setting->kind == SETTING_MODEL)) {
        status =
            place_path(config, setting, setting_field(spec, setting, reward), from_override, error);
    }
    if (status) {
        return config_at_place(config, value, path, status, error);
    }
    *setting_given(spec, setting->path) = true;
    return STATUS_OK;
}

static Status read_value(Reader *reader, const Json *value, const char *path, Error *error);

/* Members of an object whose own path is `prefix` ("" for the root). */
static Status read_object(Reader *reader, const Json *object, const char *prefix, Error *error)
{
    Config *config = reader->config;
    Status status = STATUS_OK;
    for (size_t i = 0; i < json_size(object) && !status; i++) {
        char path[128];
        const Json *value = json_at(object, i);
        const char *key = json_key(object, i);
        if (snprintf(path, sizeof path, "%s%s%s", prefix, *prefix ? "." : "", key) >=
            (int)sizeof path) {
            return config_unknown_key(config, value, key, error);
        }
        status = strcmp(path, "sweep") == 0 ? sweep_read(config, value, error)
                                            : read_value(reader, value, path, error);
    }
    return status;
}

static Status read_rewards(Reader *reader, const Json *value, Error *error)
{
    Config *config = reader->config;
    if (json_size(value) == 0 || json_size(value) > MAX_REWARDS) {
        error_set(error, STATUS_USAGE, "a list of 1 to %d rewards is expected", MAX_REWARDS);
        return config_at_place(config, value, "reward", STATUS_USAGE, error);
    }
    reader->spec->n_rewards = (int)json_size(value);
    for (size_t i = 0; i < json_size(value); i++) {
        char path[32];
        snprintf(path, sizeof path, "reward.%zu", i);
        if (json_kind(json_at(value, i)) != JSON_OBJECT) {
            error_set(error, STATUS_USAGE, "%s where an object is expected",
                      json_kind_name(json_kind(json_at(value, i))));
            return config_at_place(config, json_at(value, i), path, STATUS_USAGE, error);
        }
        Status status = read_object(reader, json_at(value, i), path, error);
        if (status) {
            return status;
        }
    }
    return STATUS_OK;
}

/* What stands at a path: a group of settings or one. */
static Status read_value(Reader *reader, const Json *value, const char *path, Error *error)
{
    if (strcmp(path, "reward") == 0 && json_kind(value) == JSON_ARRAY) {
        return read_rewards(reader, value, error);
    }
    if (config_is_group(path) && json_kind(value) == JSON_OBJECT) {
        return read_object(reader, value, path, error);
    }
    return apply(reader->config, reader->spec, path, value, reader->from_override, error);
}

Status config_apply(const Config *config, RunSpec *spec, const char *path, const Json *value,
                    Error *error)
{
    Reader reader = {(Config *)(uintptr_t)config, spec, false};
    return read_value(&reader, value, path, error);
}

void config_keep_document(Config *config, JsonDocument *document)
{
    JsonDocument **more =
        realloc(config->documents, (config->n_documents + 1) * sizeof *config->documents);
    if (!more) {
        abort(); /* a handful of pointers */
    }
    config->documents = more;
    config->documents[config->n_documents++] = document;
}

/* "key.path=value": the value is JSON; a bare word is a string where a string is expected. */
static Status read_override(Config *config, const char *override, Error *error)
{
    const char *equals = strchr(override, '=');
    char path[128];
    if (!equals || equals == override || (size_t)(equals - override) >= sizeof path) {
        return error_set(error, STATUS_USAGE, "--set \"%.64s\": key.path=value is expected",
                         override);
    }
    bool fallback = override[0] == '?';
    override += fallback;
    memcpy(path, override, (size_t)(equals - override));
    path[equals - override] = 0;
    int reward;
    const Setting *setting = setting_find(path, &reward);
    if (fallback && setting && *setting_given(&config->base, path)) {
        return STATUS_OK;
    }
    bool textual = setting && (setting->kind == SETTING_TEXT || setting->kind == SETTING_PATH ||
                               setting->kind == SETTING_MODEL || setting->kind == SETTING_CHOICE);
    Text value = {0};
    if (textual && equals[1] != '"') {
        text_json_string(&value, equals + 1, strlen(equals + 1));
    } else {
        text_add(&value, equals + 1);
    }
    JsonDocument *document = NULL;
    Status status = json_parse(&document, text_string(&value), value.n, error);
    text_release(&value);
    if (status) {
        error_context(error, STATUS_USAGE, "--set %s", path);
        return STATUS_USAGE;
    }
    config_keep_document(config, document);
    Reader reader = {config, &config->base, true};
    const Json *root = json_root(document);
    status = strncmp(path, "sweep.", 6) == 0 ? sweep_override(config, path + 6, root, error)
             : strcmp(path, "sweep") == 0    ? sweep_read(config, root, error)
                                             : read_value(&reader, root, path, error);
    return status ? error_context(error, status, "--set") : STATUS_OK;
}

/* A file that does not name its experiment gives it its own name. */
static void name_experiment(Config *config)
{
    const char *slash = strrchr(config->path, '/');
    char *name = config->base.experiment;
    snprintf(name, sizeof config->base.experiment, "%.100s", slash ? slash + 1 : config->path);
    char *dot = strrchr(name, '.');
    if (dot && dot != name) {
        *dot = 0;
    }
}

Status config_read(Config **config_out, const char *path, const char *const *overrides,
                   size_t n_overrides, const char *models, Error *error)
{
    JsonDocument *document = NULL;
    if (strlen(path) >= CONFIG_PATH) {
        return error_set(error, STATUS_USAGE, "config: path longer than %d bytes", CONFIG_PATH - 1);
    }
    if (json_read(&document, path, CONFIG_BYTES, error)) {
        return error_context(error, STATUS_USAGE, "config");
    }
    Config *config = calloc(1, sizeof *config);
    if (!config) {
        json_free(document);
        return error_set(error, STATUS_FAILED, "config: out of memory");
    }
    config_keep_document(config, document);
    config->models = models;
    snprintf(config->path, sizeof config->path, "%s", path);
    snprintf(config->folder, sizeof config->folder, "%s", path);
    char *slash = strrchr(config->folder, '/');
    if (slash) {
        slash[slash == config->folder] = 0;
    } else {
        strcpy(config->folder, ".");
    }
    settings_default(&config->base);
    Reader reader = {config, &config->base, false};
    Status status = STATUS_OK;
    if (json_kind(json_root(document)) != JSON_OBJECT) {
        error_set(error, STATUS_USAGE, "%s where an object is expected",
                  json_kind_name(json_kind(json_root(document))));
        status = error_context(error, STATUS_USAGE, "config \"%s\"", path);
    } else {
        status = read_object(&reader, json_root(document), "", error);
    }
    for (size_t i = 0; i < n_overrides && !status; i++) {
        status = read_override(config, overrides[i], error);
    }
    if (!config->base.experiment[0]) {
        name_experiment(config);
    }
    if (status) {
        config_free(config);
        return status;
    }
    *config_out = config;
    return STATUS_OK;
}

Status spec_from_json(RunSpec *spec, const char *json, Error *error)
{
    JsonDocument *document = NULL;
    Config *config = calloc(1, sizeof *config);
    Status status = config ? json_parse(&document, json, strlen(json), error)
                           : error_set(error, STATUS_FAILED, "out of memory");
    if (!status) {
        Reader reader = {config, &config->base, false};
        strcpy(config->path, "stored in results.db");
        strcpy(config->folder, ".");
        settings_default(&config->base);
        status = read_object(&reader, json_root(document), "", error);
        status = status ? status : config_settle(config, &config->base, error);
        *spec = config->base;
    }
    json_free(document);
    free(config);
    return status == STATUS_USAGE ? STATUS_REFUSED : status;
}

void config_free(Config *config)
{
    if (!config) {
        return;
    }
    for (size_t i = 0; i < config->n_documents; i++) {
        json_free(config->documents[i]);
    }
    free(config->documents);
    free(config);
}

static Status rule(const Config *config, const char *key, Error *error, const char *message)
{
    return error_set(error, STATUS_USAGE, "config \"%s\": %s: %s", config->path, key, message);
}

/* Names of rewards and extractors belong to rl/: they are asked for there. */
static Status check_reward(const Config *config, const RewardSetting *reward, Error *error)
{
    const char *names[MAX_PATH_KEYS];
    size_t n = 0;
    for (; reward_names[n]; n++) {
        names[n] = reward_names[n];
        if (strcmp(names[n], reward->name) == 0) {
            break;
        }
    }
    if (!reward_names[n]) {
        error_set(error, STATUS_USAGE, "unknown reward \"%s\"; the nearest known one is \"%s\"",
                  reward->name, nearest_name(reward->name, names, n));
        return error_context(error, STATUS_USAGE, "config \"%s\": reward.name", config->path);
    }
    if (!extractor_find(reward->extractor)) {
        for (n = 0; n < (size_t)n_extractors; n++) {
            names[n] = extractors[n]->name;
        }
        error_set(error, STATUS_USAGE, "unknown extractor \"%s\"; the nearest known one is \"%s\"",
                  reward->extractor, nearest_name(reward->extractor, names, n));
        return error_context(error, STATUS_USAGE, "config \"%s\": reward.extractor", config->path);
    }
    if (strcmp(reward->name, "command") == 0 && !reward->command[0]) {
        return rule(config, "reward.command", error, "must be given for the reward command");
    }
    if (strcmp(reward->name, "regex") == 0 && !reward->pattern[0]) {
        return rule(config, "reward.pattern", error, "must be given for the reward regex");
    }
    return STATUS_OK;
}

/* What would change nothing is refused rather than made another run. */
static Status grpo_settle(const Config *config, RunSpec *spec, Error *error)
{
    bool ratios = strcmp(spec->grpo.loss, "reinforce") != 0;
    if (spec->grpo.group_size < 2) {
        return rule(config, "grpo.group_size", error,
                    "1 leaves nothing to compare with; at least 2");
    }
    if (strcmp(spec->grpo.loss, "gspo") == 0) {
        strcpy(spec->grpo.importance_sampling_level, "sequence");
    }
    if (strcmp(spec->grpo.importance_sampling_level, "sequence") == 0 && !ratios) {
        return rule(config, "grpo.importance_sampling_level", error,
                    "the loss reinforce has no ratios");
    }
    if (spec->grpo.delta > 0 && (!ratios || strcmp(spec->grpo.loss, "cispo") == 0)) {
        return rule(config, "grpo.delta", error, "the losses reinforce and cispo do not use it");
    }
    if (strcmp(spec->grpo.importance_sampling_mode, "none") != 0 &&
        strcmp(spec->grpo.rollout, "exact") == 0) {
        return rule(config, "grpo.importance_sampling_mode", error,
                    "grpo.rollout is exact, so that there is nothing to correct");
    }
    return STATUS_OK;
}

Status config_settle(const Config *config, RunSpec *spec, Error *error)
{
    bool grpo = strcmp(spec->method, "grpo") == 0;
    Status known = known_task_settle(spec, error);
    if (known) {
        return error_context(error, known, "config \"%s\"", config->path);
    }
    if (!spec->model[0]) {
        return rule(config, "model", error, "must be given");
    }
    if (!spec->data.train[0] && strcmp(spec->method, "import") != 0) {
        return rule(config, "data.train", error, "must be given");
    }
    for (int i = 0; i < spec->n_rewards; i++) {
        RewardSetting *reward = &spec->reward[i];
        Status status = check_reward(config, reward, error);
        if (!status && reward->extractor != extractor_alias(reward->extractor)) {
            strcpy(reward->extractor, extractor_alias(reward->extractor));
        }
        if (status) {
            return status;
        }
    }
    if (strcmp(spec->grpo.scale_rewards, "auto") == 0) {
        bool undivided = strcmp(spec->grpo.loss, "dr_grpo") == 0 ||
                         strcmp(spec->grpo.baseline, "leave_one_out") == 0;
        strcpy(spec->grpo.scale_rewards, undivided ? "none" : "group");
    }
    if (strcmp(spec->method, "scan") == 0 && scan_settle(spec, error)) {
        return error_context(error, STATUS_USAGE, "config \"%s\"", config->path);
    }
    if (spec->start_sha256[0] && !spec->start_run[0]) {
        return rule(config, "start_sha256", error, "start_run is not given");
    }
    if (grpo && grpo_settle(config, spec, error)) {
        return STATUS_USAGE;
    }
    if (spec->eval.pass_k > 1 && (spec->eval.greedy || spec->eval.pass_k > spec->eval.samples)) {
        return rule(config, "eval.pass_k", error,
                    "wants as many eval.samples, drawn (eval.greedy false)");
    }
    if (spec->eval.max_new_tokens == 0) {
        spec->eval.max_new_tokens = spec->grpo.max_new_tokens;
    }
    Status status = adapter_settle(spec, error);
    return status ? error_context(error, status, "config \"%s\"", config->path) : STATUS_OK;
}

Status model_find(char directory[CONFIG_PATH], const char *name, const char *models, Error *error)
{
    if (strlen(name) >= CONFIG_PATH) {
        return error_set(error, STATUS_USAGE, "model: name longer than %d bytes", CONFIG_PATH - 1);
    }
    if (*name && exists(name)) {
        /* What adapter export writes of a GGUF model is a folder with one and no config.json. */
        char inside[FILE_PATH_MAX];
        bool gguf = path_join(inside, name, "config.json", NULL) == STATUS_OK && !exists(inside) &&
                    path_join(inside, name, MODEL_GGUF_FILE, NULL) == STATUS_OK &&
                    strlen(inside) < CONFIG_PATH && exists(inside);
        strcpy(directory, gguf ? inside : name);
        return STATUS_OK;
    }
    for (const char *folder = models; *name && !strchr(name, '/') && folder && *folder;) {
        size_t n = strcspn(folder, ":");
        if (n > 0 &&
            snprintf(directory, CONFIG_PATH, "%.*s/%s", (int)n, folder, name) < CONFIG_PATH &&
            exists(directory)) {
            return STATUS_OK;
        }
        folder += n + (folder[n] == ':');
    }
    if (hub_is_name(name)) {
        char snapshot[FILE_PATH_MAX];
        Status status = hub_find(snapshot, name, models, error);
        if (!status && strlen(snapshot) >= CONFIG_PATH) {
            return error_set(error, STATUS_USAGE, "model \"%s\": path too long", name);
        }
        if (!status) {
            strcpy(directory, snapshot);
        }
        return status;
    }
    return error_set(
        error, STATUS_REFUSED,
        "model \"%s\": no such directory, nor an embedded model of that name in \"%s\"", name,
        models ? models : "");
}

bool config_is_sweep(const Config *config)
{
    bool sweep = false;
    for (int i = 0; i < config->n_grids; i++) {
        sweep |= config->grids[i].n_axes > 0;
    }
    return sweep;
}

/* Is the setting shown? What does not matter to a scan is left out of it, and where the adapter is
 * a stored run's, its plan too, until it is known (config is NULL then). */
static bool is_shown(const RunSpec *spec, const Config *config, const Setting *setting)
{
    if ((strcmp(setting->path, "adapter.u") == 0 && spec->adapter.u == 0) ||
        (strcmp(setting->path, "adapter.groups") == 0 && spec->adapter.groups == 0)) {
        return false; /* not known yet */
    }
    bool scan = strcmp(spec->method, "scan") == 0;
    bool stored = scan && config && strcmp(spec->scan.directions, "scalars") != 0;
    return (scan ? setting_applies(spec, setting) : strncmp(setting->path, "scan.", 5) != 0) &&
           !(stored && strncmp(setting->path, "adapter.", 8) == 0);
}

/* The settings first to end - 1, which share a group, as one object. */
static void show_group(const RunSpec *spec, const Config *config, size_t first, size_t end,
                       int reward, Text *out)
{
    const char *separator = "{";
    for (size_t i = first; i < end; i++) {
        if (is_shown(spec, config, setting_at(i))) {
            text_printf(out, "%s\"%s\": ", separator, strchr(setting_at(i)->path, '.') + 1);
            setting_value_json(spec, setting_at(i), reward, out);
            separator = ", ";
        }
    }
    text_add(out, "}");
}

void config_show(const RunSpec *spec, const Config *config, Text *out)
{
    const char *separator = "{";
    for (size_t i = 0, end; i < settings_count(); i = end) {
        const char *path = setting_at(i)->path;
        size_t n_name = strcspn(path, ".");
        bool group = path[n_name] == '.', shown = false;
        for (end = i; end == i || (group && end < settings_count() &&
                                   strncmp(setting_at(end)->path, path, n_name + 1) == 0);
             end++) {
            shown |= is_shown(spec, config, setting_at(end));
        }
        if (!shown) {
            continue;
        }
        text_printf(out, "%s\n  \"%.*s\": ", separator, (int)n_name, path);
        separator = ",";
        if (!group) {
            setting_value_json(spec, setting_at(i), 0, out);
            continue;
        }
        int n = strncmp(path, "reward.", 7) == 0 ? spec->n_rewards : 1;
        text_add(out, n > 1 ? "[" : "");
        for (int reward = 0; reward < n; reward++) {
            text_add(out, reward ? ", " : "");
            show_group(spec, config, i, end, reward, out);
        }
        text_add(out, n > 1 ? "]" : "");
    }
    if (config && config_is_sweep(config)) {
        sweep_show(config, out);
    }
    text_add(out, "\n}\n");
}
