/* Keys of config.json, each checked for its type and range (private to the readers of a config).
 * An absent key and null are the same. Errors: STATUS_REFUSED naming the key and the rule. */
#pragma once
#include <stdbool.h>

#include "core/json.h"
#include "core/status.h"

enum { CONFIG_REQUIRED = -1 };

/* An integer in min .. max. fallback: value when the key is absent, or CONFIG_REQUIRED. */
Status config_int(int *out, const Json *root, const char *key, int min, int max, int fallback,
                  Error *error);
/* A number in (0, max]; what arithmetic in f32 takes for 0 is none. */
Status config_positive(double *out, const Json *root, const char *key, double max, double fallback,
                       Error *error);
Status config_bool(bool *out, const Json *root, const char *key, bool fallback, Error *error);
/* A string, or NULL when absent. */
Status config_string(const char **out, const Json *root, const char *key, Error *error);
