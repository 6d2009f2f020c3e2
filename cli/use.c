/* A run says which model it belongs to; --model may name another place of it. */
#include "cli/use.h"

#include "experiments/carry.h"

static Status open_adapter(Use *use, const Cli *cli, const UseOptions *options, Error *error)
{
    Store *store;
    if (options->run && options->surface) {
        return error_set(error, STATUS_USAGE, "--run and --surface exclude each other");
    }
    if (options->adapter && (options->run || options->surface)) {
        return error_set(error, STATUS_USAGE, "--adapter excludes --run and --surface");
    }
    if (!options->surface != !options->at) {
        return error_set(error, STATUS_USAGE, "--surface and --at go together");
    }
    if (!options->run && !options->surface) {
        return STATUS_OK;
    }
    Status status = cli_open_store(cli, &store, error);
    if (!status) {
        status = options->run ? run_adapter_open(&use->adapter, store, options->run, error)
                              : surface_adapter_open(&use->adapter, store, options->surface,
                                                     options->at, error);
        if (!status && options->pinned && options->run) {
            status = run_adapter_pin(&use->adapter, store, error);
        }
        store_close(store);
    }
    return status;
}

Status use_open_adapter(Use *use, const Cli *cli, const UseOptions *options, Error *error)
{
    char directory[CONFIG_PATH];
    bool adapted = options->run || options->surface || options->adapter;
    cli_world_init(&use->world, cli);
    Status status = open_adapter(use, cli, options, error);
    bool stored = options->run || options->surface;
    const char *model = options->model || !stored ? options->model : use->adapter.spec.model;
    status = status ? status : cli_model_directory(cli, directory, model, error);
    if (!status && options->adapter) {
        status = carry_open(&use->adapter, options->adapter, model, directory, error);
    }
    status = status ? status
                    : session_open(&use->session, &use->world.world, directory,
                                   adapted ? &use->adapter : NULL, error);
    return status;
}

Status use_open(Use *use, const Cli *cli, const UseOptions *options, Error *error)
{
    Status status = use_open_adapter(use, cli, options, error);
    if (!status && !use->session.bench.model->tokenizer) {
        status = error_set(error, STATUS_REFUSED, "model \"%s\": it has no tokenizer",
                           use->session.bench.directory);
    }
    return status;
}

void use_close(Use *use)
{
    if (use->world.cli) {
        session_close(&use->session);
        run_adapter_close(&use->adapter);
        cli_world_release(&use->world);
    }
}
