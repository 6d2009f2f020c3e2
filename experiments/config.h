/* A config file (INTERFACE, Configs): strict JSON, read into settings (settings.h) and axes of a
 * sweep. */
#pragma once
#include "experiments/settings.h"

enum { MAX_AXES = 8, MAX_GRIDS = 32 };

/* path: a setting, or a group of settings ("adapter", "reward") whose values are objects. */
typedef struct {
    char path[128];
    const Json *values; /* a list, not empty */
    bool with_previous; /* goes along with the axis before it: as many values, no product */
} Axis;

/* The cartesian product of its axes, those that go together being one. */
typedef struct {
    Axis axes[MAX_AXES];
    int n_axes;
} Grid;

typedef struct Config {
    char path[CONFIG_PATH];   /* the file */
    char folder[CONFIG_PATH]; /* its folder, "." without one */
    RunSpec base;
    Grid grids[MAX_GRIDS]; /* a sweep is one after the other: an object is one grid, a list several
                            */
    int n_grids;
    JsonDocument **documents; /* the file and the overrides; axes point into them */
    size_t n_documents;
    const char *models;
} Config;

/* Read a config and apply "key.path=value" overrides, in order. An override's relative path is
 * looked for in the config's folder, then in the working directory. One that starts with "?"
 * counts where the setting was not given before. models: folders of embedded
 * models, divided by ':'. Errors: STATUS_USAGE: file, line, key path and rule; for an unknown key
 * the nearest known one. */
Status config_read(Config **config, const char *path, const char *const *overrides,
                   size_t n_overrides, const char *models, Error *error);
void config_free(Config *config);
/* The settings of a stored run from its config's JSON, as config_show wrote it. Errors:
 * STATUS_REFUSED. */
Status spec_from_json(RunSpec *spec, const char *json, Error *error);

/* Has it an axis? */
bool config_is_sweep(const Config *config);
/* Set one setting of spec, or those of a group, from a JSON value (a cell of a sweep). Errors:
 * STATUS_USAGE with the path. */
Status config_apply(const Config *config, RunSpec *spec, const char *path, const Json *value,
                    Error *error);
/* Settle what depends on other settings ("auto" and 0) and check the rules between them. Errors:
 * STATUS_USAGE. */
Status config_settle(const Config *config, RunSpec *spec, Error *error);

/* The directory of a model: the name itself when it is one, else a name in one of the folders of
 * `models`, else what Hugging Face's cache in one of them has under ORG/NAME (core/hub.h). Errors:
 * STATUS_USAGE for a name too long, STATUS_REFUSED saying where it was looked for. */
Status model_find(char directory[CONFIG_PATH], const char *name, const char *models, Error *error);

/* The whole as JSON: one nested object, indented, sweep included when config is not NULL. */
void config_show(const RunSpec *spec, const Config *config, Text *out);
