/* tinylora grpo CONFIG */
#include "cli/train.h"
#include "cli/verbs.h"

static Status run(Cli *cli, int argc, char **argv, Error *error)
{
    return cli_train(cli, "grpo", argc, argv, error);
}

const Verb verb_grpo = {
    .name = "grpo",
    .summary = "one run of reinforcement learning with verifiable rewards",
    .usage = "CONFIG [--set key.path=value ...] [--dry-run] [--retry-failed]",
    .help = "Every step is committed to results.db. Run again after any stop, it goes on where it "
            "was;\n"
            "a run that is done is not done twice.\n"
            "A step's batch is grpo.prompts_per_step x grpo.group_size completions.\n\n"
            "  --set K=V        override a setting; may be given again\n"
            "  --dry-run        say what would run\n"
            "  --retry-failed   try a failed run again from its newest checkpoint\n\n"
            "examples:\n"
            "  tinylora grpo my.json --set optimizer.lr=1e-4\n"
            "  tinylora --db /data/results.db --max-time 3600 grpo my.json\n",
    .run = run,
    .audited = true,
};
