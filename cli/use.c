/* A run says which model it belongs to; --model may name another place of it. */
#include "cli/use.h"

Status use_open(Use *use, const Cli *cli, const char *model, const char *run_id, Error *error)
{
    char directory[CONFIG_PATH];
    Status status = STATUS_OK;
    cli_world_init(&use->world, cli);
    if (run_id) {
        Store *store;
        status = cli_open_store(cli, &store, error);
        if (!status) {
            status = run_adapter_open(&use->adapter, store, run_id, error);
            store_close(store);
        }
        model = model ? model : use->adapter.spec.model;
    }
    status = status ? status : cli_model_directory(cli, directory, model, error);
    status = status ? status
                    : session_open(&use->session, &use->world.world, directory,
                                   run_id ? &use->adapter : NULL, error);
    if (!status && !use->session.bench.model->tokenizer) {
        status =
            error_set(error, STATUS_REFUSED, "model \"%s\": it has no tokenizer.json", directory);
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
