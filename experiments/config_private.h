/* What config.c and sweep.c share. Private to the two. */
#pragma once
#include "experiments/config.h"

/* "config "x.json" line 3: key: " before the message. */
Status config_at_place(const Config *config, const Json *value, const char *key, Status status,
                       Error *error);
/* Errors: STATUS_USAGE with the nearest key that is known. */
Status config_unknown_key(const Config *config, const Json *value, const char *key, Error *error);
/* Is there a setting below this path ("grpo" of "grpo.loss")? */
bool config_is_group(const char *path);
/* The config owns it from now on. */
void config_keep_document(Config *config, JsonDocument *document);

/* The config's "sweep": its grids anew. Errors: STATUS_USAGE. */
Status sweep_read(Config *config, const Json *value, Error *error);
/* --set sweep.KEY=[...]: in every grid. */
Status sweep_override(Config *config, const char *key, const Json *values, Error *error);
/* Append the grids as sweep_read takes them, ranges and points written out. */
void sweep_show(const Config *config, Text *out);
