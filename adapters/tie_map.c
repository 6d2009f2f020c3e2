/* The file is hostile until checked: every module once, every group from 0 on. */
#include "adapters/tie_map.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"

enum { MAP_BYTES = 1 << 24 };

/* Which module of the model has this name; false: none. */
static bool find_name(Module *module, const char *name, const ModelConfig *config)
{
    int layer = -1;
    if (sscanf(name, "model.layers.%6d.", &layer) != 1 || layer < 0 || layer >= config->n_layers) {
        return false;
    }
    for (int role = 0; role < N_ROLES; role++) {
        char whole[96];
        module_name(whole, layer, (Role)role);
        if (strcmp(whole, name) == 0) {
            *module = (Module){layer, (Role)role};
            return true;
        }
    }
    return false;
}

static int index_of(const Module *wanted, const Module *modules, int n_modules)
{
    for (int i = 0; i < n_modules; i++) {
        if (modules[i].layer == wanted->layer && modules[i].role == wanted->role) {
            return i;
        }
    }
    return -1;
}

/* One member of the file. */
static Status read_member(int *map, const char *name, const Json *value, const ModelConfig *config,
                          const Module *modules, int n_modules, Error *error)
{
    Module module;
    int64_t group;
    int line = json_line(value);
    if (!find_name(&module, name, config)) {
        return error_set(error, STATUS_REFUSED,
                         "line %d: \"%.200s\" is no module of the model, which has layers 0 to %d "
                         "of names like \"model.layers.0.self_attn.q_proj\"",
                         line, name, config->n_layers - 1);
    }
    int i = index_of(&module, modules, n_modules);
    if (i < 0) {
        return error_set(error, STATUS_REFUSED,
                         "line %d: \"%s\" is not among the modules that adapter.targets selects",
                         line, name);
    }
    if (json_kind(value) != JSON_NUMBER || !json_int64(value, &group) || group < 0 ||
        group >= n_modules) {
        return error_set(error, STATUS_REFUSED,
                         "line %d: \"%s\": a group is a whole number from 0 to %d", line, name,
                         n_modules - 1);
    }
    map[i] = (int)group;
    return STATUS_OK;
}

/* No module without a group, no group without a module. seen: (n_modules) zeros. */
static Status check_map(int *groups, const int *map, int *seen, const Module *modules,
                        int n_modules, Error *error)
{
    char name[96];
    int last = 0;
    for (int i = 0; i < n_modules; i++) {
        module_name(name, modules[i].layer, modules[i].role);
        if (map[i] < 0) {
            return error_set(error, STATUS_REFUSED, "module \"%s\" has no group", name);
        }
        seen[map[i]]++;
        last = map[i] > map[last] ? i : last;
    }
    module_name(name, modules[last].layer, modules[last].role);
    for (int g = 0; g < map[last]; g++) {
        if (seen[g] == 0) {
            return error_set(error, STATUS_REFUSED,
                             "group %d has no module, but \"%s\" is in group %d", g, name,
                             map[last]);
        }
    }
    *groups = map[last] + 1;
    return STATUS_OK;
}

Status tie_map_read(int **map_out, int *groups, const char *path, const ModelConfig *config,
                    const Module *modules, int n_modules, Error *error)
{
    JsonDocument *document = NULL;
    Status status = json_read(&document, path, MAP_BYTES, error);
    if (status != STATUS_OK) {
        return error_context(error, status, "tie map");
    }
    const Json *root = json_root(document);
    int *map = malloc(((size_t)n_modules + 1) * sizeof *map);
    int *seen = calloc((size_t)n_modules + 1, sizeof *seen);
    if (map == NULL || seen == NULL) {
        status = error_set(error, STATUS_FAILED, "no memory for %d modules", n_modules);
    } else if (json_kind(root) != JSON_OBJECT) {
        status = error_set(error, STATUS_REFUSED, "%s where an object is expected",
                           json_kind_name(json_kind(root)));
    } else if (n_modules < 1) {
        status = error_set(error, STATUS_USAGE, "the targets select no module of the model");
    }
    for (int i = 0; status == STATUS_OK && i < n_modules; i++) {
        map[i] = -1;
    }
    for (size_t i = 0; status == STATUS_OK && i < json_size(root); i++) {
        status = read_member(map, json_key(root, i), json_at(root, i), config, modules, n_modules,
                             error);
    }
    status = status ? status : check_map(groups, map, seen, modules, n_modules, error);
    free(seen);
    json_free(document);
    if (status != STATUS_OK) {
        free(map);
        return error_context(error, status, "tie map \"%s\"", path);
    }
    *map_out = map;
    return STATUS_OK;
}
