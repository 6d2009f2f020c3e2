/* What `sft`, `grpo` and `sweep` share. */
#pragma once
#include "cli/cli.h"

/* method: what the config must say ("sft", "grpo"); NULL: any, with or without a sweep. */
Status cli_train(Cli *cli, const char *method, int argc, char **argv, Error *error);
