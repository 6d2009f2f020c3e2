/* The world that the experiments see: clock, stop flag, progress on stderr, this machine's name. */
#pragma once
#include "cli/cli.h"
#include "experiments/world.h"

typedef struct {
    World world;
    const Cli *cli;
    char host[256], boot_id[64];
    Text environment;
    double began_s, shown_s;
    int64_t steps_before; /* done by earlier attempts */
    bool line_open;       /* a progress line without newline is on the terminal */
} CliWorld;

void cli_world_init(CliWorld *world, const Cli *cli);
void cli_world_release(CliWorld *world);
