/* Rotary positions: what config.json says of them, and the frequencies that follow. A scaling that
 * depends on how long a text is would make a number depend on its neighbours: it is refused. */
#include <math.h>
#include <string.h>

#include "core/config_keys.h"
#include "core/model_config.h"
#include "core/model_rope.h"

static const double TURN = 6.283185307179586476925;

static Status read_factor(ModelConfig *config, const Json *scaling, Error *error)
{
    Status status = config_positive(&config->rope_factor, scaling, "factor", 1e6, 0, error);
    return status == STATUS_OK && config->rope_factor < 1
               ? error_set(error, STATUS_REFUSED, "needs a \"factor\" of at least 1")
               : status;
}

static Status read_llama3(ModelConfig *config, const Json *scaling, Error *error)
{
    Status status = read_factor(config, scaling, error);
    if (status == STATUS_OK) {
        status = config_positive(&config->rope_low_freq_factor, scaling, "low_freq_factor", 1e6, 0,
                                 error);
    }
    if (status == STATUS_OK) {
        status = config_positive(&config->rope_high_freq_factor, scaling, "high_freq_factor", 1e6,
                                 0, error);
    }
    if (status == STATUS_OK) {
        status = config_int(&config->rope_original_positions, scaling,
                            "original_max_position_embeddings", 1, 1 << 24, CONFIG_REQUIRED, error);
    }
    if (status == STATUS_OK && (config->rope_low_freq_factor <= 0 ||
                                config->rope_high_freq_factor <= config->rope_low_freq_factor)) {
        status = error_set(error, STATUS_REFUSED,
                           "needs a \"low_freq_factor\" below its \"high_freq_factor\"");
    }
    return status;
}

static Status read_yarn(ModelConfig *config, const Json *scaling, Error *error)
{
    static const char *const others[] = {"mscale", "mscale_all_dim", "truncate"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        if (json_kind(json_get(scaling, others[i])) != JSON_NULL) {
            return error_set(error, STATUS_REFUSED, "\"%s\" of yarn is not supported", others[i]);
        }
    }
    Status status = read_factor(config, scaling, error);
    if (status == STATUS_OK) {
        status = config_int(&config->rope_original_positions, scaling,
                            "original_max_position_embeddings", 1, 1 << 24, config->max_positions,
                            error);
    }
    if (status == STATUS_OK) {
        status = config_positive(&config->rope_beta_fast, scaling, "beta_fast", 1e6, 32, error);
    }
    if (status == STATUS_OK) {
        status = config_positive(&config->rope_beta_slow, scaling, "beta_slow", 1e6, 1, error);
    }
    if (status == STATUS_OK) {
        status = config_positive(&config->rope_attention_factor, scaling, "attention_factor", 1e6,
                                 0.1 * log(config->rope_factor) + 1, error);
    }
    if (status == STATUS_OK &&
        (config->rope_theta <= 1 || config->rope_beta_fast <= config->rope_beta_slow)) {
        status = error_set(error, STATUS_REFUSED,
                           "yarn needs a \"rope_theta\" above 1 and a \"beta_slow\" below its "
                           "\"beta_fast\"");
    }
    return status;
}

static const struct {
    const char *name;
    RopeType type;
    Status (*read)(ModelConfig *config, const Json *scaling, Error *error);
} types[] = {
    {"default", ROPE_PLAIN, NULL},
    {"linear", ROPE_LINEAR, read_factor},
    {"llama3", ROPE_LLAMA3, read_llama3},
    {"yarn", ROPE_YARN, read_yarn},
};

const char *rope_type_name(RopeType type)
{
    return types[type].name;
}

static Status read_type(ModelConfig *config, const Json *scaling, Error *error)
{
    const char *name = NULL, *old_name = NULL;
    Status status = config_string(&name, scaling, "rope_type", error);
    if (status == STATUS_OK) {
        status = config_string(&old_name, scaling, "type", error);
    }
    if (status != STATUS_OK) {
        return status;
    }
    if (name && old_name && strcmp(name, old_name) != 0) {
        return error_set(error, STATUS_REFUSED,
                         "\"rope_type\" \"%.60s\" and \"type\" \"%.60s\" differ", name, old_name);
    }
    name = name ? name : old_name;
    if (!name && !json_get(scaling, "factor")) {
        name = "default"; /* rope_parameters with nothing but a rope_theta */
    }
    for (size_t i = 0; name && i < sizeof types / sizeof *types; i++) {
        if (strcmp(name, types[i].name) == 0) {
            config->rope_type = types[i].type;
            return types[i].read ? types[i].read(config, scaling, error) : STATUS_OK;
        }
    }
    bool dynamic = name && (strcmp(name, "dynamic") == 0 || strcmp(name, "longrope") == 0);
    return error_set(error, STATUS_REFUSED, "rope type \"%.60s\" is not supported%s",
                     name ? name : "(none)",
                     dynamic ? ": it depends on the length of the text" : "");
}

Status rope_read(ModelConfig *config, const Json *root, Error *error)
{
    const Json *older = json_get(root, "rope_scaling");
    const Json *newer = json_get(root, "rope_parameters");
    Status status = config_positive(&config->rope_theta, root, "rope_theta", 1e15, 10000, error);
    if (status != STATUS_OK || (json_kind(older) == JSON_NULL && json_kind(newer) == JSON_NULL)) {
        return status;
    }
    if (json_kind(older) != JSON_NULL && json_kind(newer) != JSON_NULL) {
        return error_set(error, STATUS_REFUSED,
                         "has both \"rope_scaling\" and \"rope_parameters\"");
    }
    const char *key = json_kind(newer) == JSON_NULL ? "rope_scaling" : "rope_parameters";
    const Json *scaling = json_kind(newer) == JSON_NULL ? older : newer;
    if (json_kind(scaling) != JSON_OBJECT) {
        return error_set(error, STATUS_REFUSED, "\"%s\" is %s, not an object", key,
                         json_kind_name(json_kind(scaling)));
    }
    double rotary = 1;
    status = config_positive(&config->rope_theta, scaling, "rope_theta", 1e15, config->rope_theta,
                             error);
    if (status == STATUS_OK) {
        status = config_positive(&rotary, scaling, "partial_rotary_factor", 1, 1, error);
    }
    if (status == STATUS_OK && rotary != 1) {
        status = error_set(error, STATUS_REFUSED, "\"partial_rotary_factor\" %g is not supported",
                           rotary);
    }
    for (size_t i = 0; i < json_size(scaling) && status == STATUS_OK; i++) {
        if (json_kind(json_at(scaling, i)) == JSON_OBJECT) {
            status = error_set(error, STATUS_REFUSED,
                               "\"%.60s\": positions of their own for a type of layer are not "
                               "supported",
                               json_key(scaling, i));
        }
    }
    if (status == STATUS_OK) {
        status = read_type(config, scaling, error);
    }
    return status == STATUS_OK ? STATUS_OK : error_context(error, status, "\"%s\"", key);
}

/* The pair of a head that turns `turns` times over the positions the model was trained on. */
static double yarn_pair(const ModelConfig *config, double turns)
{
    return config->head_dim * log(config->rope_original_positions / (turns * TURN)) /
           (2 * log(config->rope_theta));
}

/* How much of a frequency is kept, 0 .. 1; the rest is divided by the factor. */
static double kept(const ModelConfig *config, int pair, double frequency)
{
    double keep = 1;
    if (config->rope_type == ROPE_LINEAR) {
        keep = 0;
    } else if (config->rope_type == ROPE_LLAMA3) {
        double turns = config->rope_original_positions * frequency / TURN;
        double low = config->rope_low_freq_factor, high = config->rope_high_freq_factor;
        keep = (turns - low) / (high - low);
    } else if (config->rope_type == ROPE_YARN) {
        double low = fmax(floor(yarn_pair(config, config->rope_beta_fast)), 0);
        double high = fmin(ceil(yarn_pair(config, config->rope_beta_slow)), config->head_dim - 1);
        keep = 1 - (pair - low) / (high == low ? 0.001 : high - low);
    }
    return keep < 0 ? 0 : keep > 1 ? 1 : keep;
}

double rope_frequencies(double *frequency, const ModelConfig *config)
{
    for (int i = 0; i < config->head_dim / 2; i++) {
        double base = pow(config->rope_theta, -2.0 * i / config->head_dim);
        frequency[i] = base;
        if (config->rope_type != ROPE_PLAIN) {
            double keep = kept(config, i, base);
            frequency[i] = keep * base + (1 - keep) * base / config->rope_factor;
        }
    }
    return config->rope_type == ROPE_YARN ? config->rope_attention_factor : 1;
}
