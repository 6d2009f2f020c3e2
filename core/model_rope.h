/* Reading rope_theta and rope_scaling, or the newer rope_parameters that holds both (private to the
 * reader and the writer of a config, but for the name of a type). config->head_dim and max_positions are there already. */
#pragma once
#include "core/json.h"
#include "core/model_config.h"

Status rope_read(ModelConfig *config, const Json *root, Error *error);
const char *rope_type_name(RopeType type);
