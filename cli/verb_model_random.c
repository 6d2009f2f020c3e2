/* tinylora model random */
#include <string.h>

#include "cli/options.h"
#include "cli/verbs.h"
#include "core/model_config.h"

static Status run(Cli *cli, int argc, char **argv, Error *error)
{
    const char *config = NULL, *dtype = "bf16", *directory;
    uint64_t seed = 1;
    TensorType type = TENSOR_OTHER;
    const Option options[] = {
        {"--config", OPTION_TEXT, &config, 0, 0},
        {"--dtype", OPTION_TEXT, &dtype, 0, 0},
        {"--seed", OPTION_SEED, &seed, 0, 0},
    };
    Status status = options_parse(cli, options, 3, argc, argv, &directory, 1, 1, error);
    if (!status && !config) {
        status = error_set(error, STATUS_USAGE, "--config: a config.json is missing");
    }
    type = strcmp(dtype, "bf16") == 0  ? TENSOR_BF16
           : strcmp(dtype, "f16") == 0 ? TENSOR_F16
           : strcmp(dtype, "f32") == 0 ? TENSOR_F32
                                       : TENSOR_OTHER;
    if (!status && type == TENSOR_OTHER) {
        status = error_set(error, STATUS_USAGE, "--dtype \"%s\": one of bf16, f16, f32", dtype);
    }
    status = status ? status : model_random_write(directory, config, type, seed, error);
    if (!status) {
        cli_note(cli, "wrote %s", directory);
    }
    return status;
}

const Verb verb_model_random = {
    .name = "model random",
    .summary = "a model of a given shape with random weights",
    .usage = "--config FILE [--dtype bf16|f16|f32] [--seed N] DIR",
    .help = "For benchmarks and tests. The same config, dtype and seed give the same bytes.\n\n"
            "  --config FILE   a config.json\n"
            "  --dtype T       bf16 unless given\n"
            "  --seed N        1 unless given\n\n"
            "examples:\n"
            "  tinylora model random --config qwen/config.json --dtype bf16 --seed 7 /tmp/qwen\n"
            "  tinylora model random --config models/abacus/config.json --dtype f32 /tmp/blank\n",
    .run = run,
};
