/* One table of keys drives reading, ranges and the complaint about a missing or unknown key. */
#include "rl/recipe.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "core/json.h"

typedef enum { KEY_PATH, KEY_INTEGER, KEY_NUMBER } KeyKind;

typedef struct {
    const char *name;
    KeyKind kind;
    size_t offset;      /* in Recipe */
    double least, most; /* of numbers, both allowed */
} Key;

#define MOST_EXACT 9007199254740992.0 /* 2^53: every integer up to it is a double */

static const Key keys[] = {
    {"config", KEY_PATH, offsetof(Recipe, config), 0, 0},
    {"tokenizer", KEY_PATH, offsetof(Recipe, tokenizer), 0, 0},
    {"corpus", KEY_PATH, offsetof(Recipe, corpus), 0, 0},
    {"output", KEY_PATH, offsetof(Recipe, output), 0, 0},
    {"seed", KEY_INTEGER, offsetof(Recipe, seed), 0, MOST_EXACT},
    {"steps", KEY_INTEGER, offsetof(Recipe, steps), 1, 1 << 24},
    {"batch_tokens", KEY_INTEGER, offsetof(Recipe, batch_tokens), 2, 1 << 24},
    {"warmup_steps", KEY_INTEGER, offsetof(Recipe, warmup_steps), 0, 1 << 24},
    {"lr", KEY_NUMBER, offsetof(Recipe, lr), 0, 10},
    {"weight_decay", KEY_NUMBER, offsetof(Recipe, weight_decay), 0, 10},
    {"beta2", KEY_NUMBER, offsetof(Recipe, beta2), 0.5, 0.9999999},
    {"grad_clip", KEY_NUMBER, offsetof(Recipe, grad_clip), 0, 1e9},
    {"init_std", KEY_NUMBER, offsetof(Recipe, init_std), 1e-6, 10},
    {"question_weight", KEY_NUMBER, offsetof(Recipe, question_weight), 0, 1},
};
enum { N_KEYS = sizeof keys / sizeof *keys };

static Status read_path(char out[FILE_PATH_MAX], const Json *value, const char *folder,
                        Error *error)
{
    size_t n;
    const char *string = json_string(value, &n);
    if (!string || n == 0) {
        return error_set(error, STATUS_USAGE, "expected a path");
    }
    if (string[0] != '/') {
        return path_join(out, folder, string, error);
    }
    if (n >= FILE_PATH_MAX) {
        return error_set(error, STATUS_USAGE, "path too long");
    }
    memcpy(out, string, n + 1);
    return STATUS_OK;
}

static Status read_key(Recipe *recipe, const Key *key, const Json *value, const char *folder,
                       Error *error)
{
    void *out = (char *)recipe + key->offset;
    if (key->kind == KEY_PATH) {
        return read_path(out, value, folder, error);
    }
    int64_t integer = 0;
    double number;
    bool good = key->kind == KEY_INTEGER ? json_int64(value, &integer) : true;
    good = good && json_double(value, &number) && number >= key->least && number <= key->most;
    if (!good) {
        return error_set(error, STATUS_USAGE, "expected %s from %g to %g",
                         key->kind == KEY_INTEGER ? "an integer" : "a number", key->least,
                         key->most);
    }
    if (key->kind == KEY_INTEGER) {
        memcpy(out, &integer, sizeof integer); /* the seed is unsigned and not negative */
    } else {
        memcpy(out, &number, sizeof number);
    }
    return STATUS_OK;
}

static const Key *find_key(const char *name)
{
    for (int i = 0; i < N_KEYS; i++) {
        if (strcmp(keys[i].name, name) == 0) {
            return &keys[i];
        }
    }
    return NULL;
}

static Status read_keys(Recipe *recipe, const Json *root, const char *folder, Error *error)
{
    if (json_kind(root) != JSON_OBJECT) {
        return error_set(error, STATUS_USAGE, "expected an object");
    }
    for (size_t i = 0; i < json_size(root); i++) {
        if (!find_key(json_key(root, i))) {
            return error_set(error, STATUS_USAGE, "unknown key \"%s\"", json_key(root, i));
        }
    }
    for (int i = 0; i < N_KEYS; i++) {
        const Json *value = json_get(root, keys[i].name);
        Status status = value ? read_key(recipe, &keys[i], value, folder, error)
                              : error_set(error, STATUS_USAGE, "missing");
        if (status != STATUS_OK) {
            return error_context(error, status, "key \"%s\"", keys[i].name);
        }
    }
    if (recipe->warmup_steps > recipe->steps) {
        return error_set(error, STATUS_USAGE, "key \"warmup_steps\": more than \"steps\"");
    }
    return STATUS_OK;
}

Status recipe_read(Recipe *recipe, const char *path, Error *error)
{
    JsonDocument *document;
    char folder[FILE_PATH_MAX];
    *recipe = (Recipe){.steps = 0};
    Status status = json_read(&document, path, (size_t)1 << 20, error);
    if (status != STATUS_OK) {
        return status == STATUS_REFUSED ? STATUS_USAGE : status;
    }
    const char *slash = strrchr(path, '/');
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
    status = read_keys(recipe, json_root(document), slash == path ? "/" : folder, error);
    json_free(document);
    return status == STATUS_OK ? status : error_context(error, status, "%s", path);
}
