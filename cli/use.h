/* --model and --run of the verbs that use a model: which one is opened, with which adapter. */
#pragma once
#include "cli/cli.h"
#include "cli/world.h"
#include "experiments/session.h"

typedef struct {
    CliWorld world;
    RunAdapter adapter;
    Session session;
} Use;

/* model may be NULL when a run is named: the run's own. use: zeroed; use_close also after an error.
 */
Status use_open(Use *use, const Cli *cli, const char *model, const char *run_id, Error *error);
void use_close(Use *use);
