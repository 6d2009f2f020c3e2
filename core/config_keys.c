/* Reading single keys of config.json. */
#include "core/config_keys.h"

#include <float.h>

Status config_int(int *out, const Json *root, const char *key, int min, int max, int fallback,
                  Error *error)
{
    const Json *value = json_get(root, key);
    if (json_kind(value) == JSON_NULL) {
        *out = fallback;
        return fallback != CONFIG_REQUIRED
                   ? STATUS_OK
                   : error_set(error, STATUS_REFUSED, "\"%s\" is missing", key);
    }
    if (json_kind(value) != JSON_NUMBER) {
        return error_set(error, STATUS_REFUSED, "\"%s\" is %s, not an integer", key,
                         json_kind_name(json_kind(value)));
    }
    int64_t number = 0;
    if (!json_int64(value, &number) || number < min || number > max) {
        return error_set(error, STATUS_REFUSED, "\"%s\" is %.40s, not an integer from %d to %d",
                         key, json_number_text(value), min, max);
    }
    *out = (int)number;
    return STATUS_OK;
}

Status config_positive(double *out, const Json *root, const char *key, double max, double fallback,
                       Error *error)
{
    const Json *value = json_get(root, key);
    if (json_kind(value) == JSON_NULL) {
        *out = fallback;
        return STATUS_OK;
    }
    if (json_kind(value) != JSON_NUMBER) {
        return error_set(error, STATUS_REFUSED, "\"%s\" is %s, not a number", key,
                         json_kind_name(json_kind(value)));
    }
    double number;
    if (!json_double(value, &number) || number < (double)FLT_MIN || number > max) {
        return error_set(error, STATUS_REFUSED, "\"%s\" is %.40s, not above 0 and at most %g", key,
                         json_number_text(value), max);
    }
    *out = number;
    return STATUS_OK;
}

Status config_bool(bool *out, const Json *root, const char *key, bool fallback, Error *error)
{
    const Json *value = json_get(root, key);
    *out = fallback;
    if (json_kind(value) != JSON_NULL && !json_bool(value, out)) {
        return error_set(error, STATUS_REFUSED, "\"%s\" is %s, not true or false", key,
                         json_kind_name(json_kind(value)));
    }
    return STATUS_OK;
}

Status config_string(const char **out, const Json *root, const char *key, Error *error)
{
    const Json *value = json_get(root, key);
    *out = json_string(value, NULL);
    if (json_kind(value) != JSON_NULL && !*out) {
        return error_set(error, STATUS_REFUSED, "\"%s\" is not a plain string", key);
    }
    return STATUS_OK;
}
