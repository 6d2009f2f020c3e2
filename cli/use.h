/* --model, --run, --surface and --adapter of the verbs that use a model: which one is opened, with
 * which adapter. */
#pragma once
#include "cli/cli.h"
#include "cli/world.h"
#include "experiments/session.h"

typedef struct {
    CliWorld world;
    RunAdapter adapter;
    Session session;
} Use;

/* What the command line names; NULL where it was not given. */
typedef struct {
    const char *model, *run, *surface, *at, *adapter;
    bool pinned; /* a run's model must be the one it was trained on, bit for bit */
} UseOptions;
/* For the table of options, before the verb's own. */
#define USE_OPTIONS(target)                                                                        \
    {"--model", OPTION_TEXT, &(target).model, 0, 0}, {"--run", OPTION_TEXT, &(target).run, 0, 0},  \
        {"--surface", OPTION_TEXT, &(target).surface, 0, 0},                                       \
        {"--adapter", OPTION_TEXT, &(target).adapter, 0, 0},                                       \
    {                                                                                              \
        "--at", OPTION_TEXT, &(target).at, 0, 0                                                    \
    }
#define USE_HELP                                                                                   \
    "  --run RUN         with the adapter of a run (then --model may be left out)\n"               \
    "  --surface S       with the adapter at a point of a surface, which --at names:\n"            \
    "  --at P            X,Y, minimum, best or base\n"                                             \
    "  --adapter DIR     with an adapter from a folder: bytes, peft-lora, peft-tinylora, merged\n"

/* The model may be left out where a run or a surface is named: its own. use: zeroed; use_close also
 * after an error. */
Status use_open(Use *use, const Cli *cli, const UseOptions *options, Error *error);
/* The same without the need of a tokenizer. */
Status use_open_adapter(Use *use, const Cli *cli, const UseOptions *options, Error *error);
void use_close(Use *use);
