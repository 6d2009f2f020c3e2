/* A run that nothing was computed for: its identity is what it was made of, its one checkpoint v.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/sha256.h"
#include "experiments/adapter_settings.h"
#include "experiments/carry.h"
#include "experiments/config.h"
#include "experiments/identity.h"
#include "experiments/inputs.h"
#include "rl/checkpoint.h"

enum { MAX_SCALARS = 240000000 }; /* a blob of SQLite's has at most 1e9 bytes */

/* The plan is filled in, so that the stored settings say it whole. */
static Status make_spec(RunSpec *spec, const RunAdapter *adapter, const char *directory,
                        const RunSpec *like, Error *error)
{
    AdapterSpec planned;
    ModelConfig config;
    *spec = like ? *like : adapter->spec;
    spec->adapter = adapter->spec.adapter;
    memcpy(spec->model, adapter->spec.model, sizeof spec->model);
    strcpy(spec->method, "import");
    spec->steps = 0;
    if (!like) {
        strcpy(spec->experiment, "import");
        spec->eval.max_new_tokens = spec->grpo.max_new_tokens;
    }
    Status status = model_config_read(&config, directory, error);
    if (status) {
        return status;
    }
    status = cell_adapter(&planned, spec, &config, error);
    adapter_spec_release(&planned);
    if (!status && strcmp(spec->model, directory) == 0) { /* not an embedded model's name */
        status = path_make_absolute(spec->model, "model", error);
    }
    return status;
}

static Status identify(Text *identity, const RunSpec *spec, const RunAdapter *adapter,
                       const char *directory, Error *error)
{
    InputHashes hashes = {0};
    ModelHashes model;
    char values[SHA256_HEX_SIZE];
    Status status = inputs_hash_model(&model, &hashes, directory, error);
    inputs_release(&hashes);
    if (status) {
        return status;
    }
    sha256_bytes(values, adapter->v, adapter->n * sizeof *adapter->v);
    const char *const parts[][2] = {{"import.values_sha256", values},
                                    {"model.config_sha256", model.config},
                                    {"model.generation_sha256", model.generation},
                                    {"model.tokenizer_sha256", model.tokenizer},
                                    {"model.weights_sha256", model.weights}};
    enum { N = sizeof parts / sizeof parts[0] };
    Text quoted[N] = {0};
    IdentityMember members[N];
    for (int i = 0; i < N; i++) {
        text_json_string(&quoted[i], parts[i][1], strlen(parts[i][1]));
        members[i] = (IdentityMember){parts[i][0], text_string(&quoted[i])};
    }
    identity_members(identity, spec, members, N);
    for (int i = 0; i < N; i++) {
        text_release(&quoted[i]);
    }
    return STATUS_OK;
}

/* v as the checkpoint of step 0, and the run is done. */
static Status commit(Store *store, const World *world, const char *run_id,
                     const RunAdapter *adapter, Error *error)
{
    Worker worker = {world->host, world->pid, world->boot_id, world->environment};
    double now_s = world->now_s(world->context);
    int64_t attempt;
    void *blob = NULL;
    size_t n_bytes = 0;
    Status status = store_attempt_begin(store, run_id, &worker, now_s, 0, &attempt, error);
    if (status) {
        return status;
    }
    checkpoint_of_parameters(&blob, &n_bytes, adapter->v, adapter->n, 0);
    StepRecord record = {.run_id = run_id,
                         .attempt = attempt,
                         .checkpoint = blob,
                         .checkpoint_bytes = n_bytes,
                         .now_s = now_s};
    status = store_steps(store, &record, 1, error);
    free(blob);
    status = status ? status : store_attempt_end(store, run_id, attempt, "done", now_s, error);
    return status ? status : store_run_end(store, run_id, RUN_DONE, NULL, NAN, NAN, now_s, error);
}

Status carry_import(char run_id[17], Store *store, const World *world, const RunAdapter *adapter,
                    const char *directory, const RunSpec *like, Error *error)
{
    RunSpec spec;
    Text identity = {0}, config = {0};
    RunState state = RUN_WAITING;
    int64_t last_step;
    double now_s = world->now_s(world->context);
    if (adapter->n > MAX_SCALARS) {
        return error_set(
            error, STATUS_USAGE,
            "%s has %zu parameters, a row of results.db holds %d; use it as --adapter, "
            "a merged model as --model",
            adapter->name, adapter->n, MAX_SCALARS);
    }
    Status status = make_spec(&spec, adapter, directory, like, error);
    status = status ? status : identify(&identity, &spec, adapter, directory, error);
    if (!status) {
        identity_run_id(run_id, &identity);
        config_show(&spec, NULL, &config);
        RunInfo info = {.run_id = run_id,
                        .experiment = spec.experiment,
                        .identity = text_string(&identity),
                        .config = text_string(&config),
                        .model = spec.model,
                        .method = spec.method,
                        .adapter = spec.adapter.method,
                        .budget = (int64_t)adapter->n,
                        .lr = NAN,
                        .seed = spec.seed};
        status = store_experiment(store, spec.experiment, text_string(&config), now_s, error);
        status = status ? status : store_run(store, &info, now_s, &state, &last_step, error);
    }
    if (!status && state != RUN_DONE) {
        status = commit(store, world, run_id, adapter, error);
    }
    text_release(&identity);
    text_release(&config);
    return status;
}
