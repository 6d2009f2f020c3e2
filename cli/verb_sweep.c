/* tinylora sweep CONFIG */
#include "cli/train.h"
#include "cli/verbs.h"

static Status run(Cli *cli, int argc, char **argv, Error *error)
{
    return cli_train(cli, NULL, argc, argv, error);
}

const Verb verb_sweep = {
    .name = "sweep",
    .summary = "every cell of a config's grid, into results.db",
    .usage = "CONFIG [--set key.path=value ...] [--dry-run] [--retry-failed]",
    .help = "Cells that share model, plan and data run as one batch over one read of the weights. "
            "Done\n"
            "cells are skipped, a failed one is recorded and the others go on; after any stop the "
            "same\n"
            "command goes on where it was.\n\n"
            "  --set K=V        override a setting, or an axis with sweep.KEY=[...]; may be given "
            "again\n"
            "  --dry-run        list the cells and their states\n"
            "  --retry-failed   try failed cells again from their newest checkpoints\n\n"
            "examples:\n"
            "  tinylora sweep experiments/presets/budget13-lr.json\n"
            "  tinylora sweep experiments/presets/budget13-lr.json --set sweep.seed=[1,2,3] "
            "--dry-run\n",
    .run = run,
    .audited = true,
};
