/* tinylora pretrain RECIPE */
#include "cli/options.h"
#include "cli/verbs.h"
#include "rl/pretrain.h"

static const double INTERVAL_S = 5;

typedef struct {
    const Cli *cli;
    double began_s, shown_s;
    int64_t first_step;
} Report;

static int report(void *context, const PretrainProgress *progress)
{
    Report *report = context;
    double now = cli_clock_s();
    if (report->first_step == 0) {
        report->first_step = progress->step;
        report->began_s = now;
    }
    if (now - report->shown_s >= INTERVAL_S || progress->step == progress->steps) {
        int64_t done = progress->step - report->first_step;
        double left = done ? (now - report->began_s) / (double)done *
                                 (double)(progress->steps - progress->step)
                           : 0;
        report->shown_s = now;
        cli_note(report->cli,
                 "step %lld/%lld  loss %.4f  gradient norm %.3g  lr %.3g  %lld tokens  "
                 "left %.0f s",
                 (long long)progress->step, (long long)progress->steps, progress->loss,
                 progress->gradient_norm, progress->rate, (long long)progress->n_tokens, left);
    }
    return cli_stopping();
}

static Status run(Cli *cli, int argc, char **argv, Error *error)
{
    const char *path;
    Report state = {.cli = cli};
    Status status = options_parse(cli, NULL, 0, argc, argv, &path, 1, 1, error);
    if (status) {
        return status;
    }
    status = pretrain_run(path, cli->n_threads, report, &state, error);
    if (status == STATUS_STOPPED) {
        error_set(error, status, "stopped; its state is saved, the same command goes on");
    }
    return status;
}

const Verb verb_pretrain = {
    .name = "pretrain",
    .summary = "a small model from scratch, all its weights trained",
    .usage = "RECIPE",
    .help = "How the models of models/ were made. The recipe names shape, tokenizer, corpus and "
            "output;\n"
            "run again after any stop, it goes on where it was.\n\n"
            "examples:\n"
            "  tinylora pretrain models/abacus/recipe.json\n"
            "  tinylora --max-time 600 pretrain models/abacus/recipe.json\n",
    .run = run,
};
