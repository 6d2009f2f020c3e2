/* Settings of adapter.*: presets of other tools, rules between settings, the plan they choose, and
 * the identities of runs made before the settings were. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/sha256.h"
#include "experiments/adapter_settings.h"
#include "experiments/carry.h"
#include "experiments/cell.h"
#include "experiments/config.h"

static char folder[] = "/tmp/tinylora-adapter-XXXXXX";
static char config_path[128], map_path[128];
static Error error;

static int make_folder(void **state)
{
    (void)state;
    if (!mkdtemp(folder)) {
        return 1;
    }
    snprintf(config_path, sizeof config_path, "%s/c.json", folder);
    snprintf(map_path, sizeof map_path, "%s/map.json", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    unlink(config_path);
    unlink(map_path);
    return rmdir(folder);
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

/* A shape of Qwen2's: only the counts matter here. */
static ModelConfig model_of(int n_layers)
{
    return (ModelConfig){.n_layers = n_layers,
                         .width = 64,
                         .n_heads = 4,
                         .n_kv_heads = 2,
                         .head_dim = 16,
                         .ff_width = 96};
}

/* The settled settings of an "adapter" object; the status of reading and settling. */
static Status settle(RunSpec *spec, const char *adapter)
{
    char text[1024];
    Config *config = NULL;
    snprintf(text, sizeof text,
             "{\"model\": \"m\", \"data\": {\"train\": \"t.jsonl\"}, \"adapter\": %s}", adapter);
    write_file(config_path, text);
    Status status = config_read(&config, config_path, NULL, 0, "", &error);
    if (!status) {
        *spec = config->base;
        status = config_settle(config, spec, &error);
    }
    config_free(config);
    return status;
}

static AdapterSpec adapter_of(RunSpec *spec, const char *text, int n_layers)
{
    AdapterSpec adapter = {0};
    ModelConfig model = model_of(n_layers);
    if (settle(spec, text) || cell_adapter(&adapter, spec, &model, &error)) {
        fail_msg("%s: %s", text, error.message);
    }
    return adapter;
}

static void presets_are_the_points_that_their_tools_stand_at(void **state)
{
    (void)state;
    const unsigned all = (1u << N_ROLES) - 1, qv = 1u << ROLE_Q | 1u << ROLE_V;
    const struct {
        const char *text;
        int n_layers, u, groups, tie_factor;
        Grouping grouping;
        ModuleOrder order;
        unsigned targets;
        SigmaSplit sigma;
        VectorStart start;
        double start_size, scale;
        int64_t seed;
    } cases[] = {
        {"{\"preset\": \"paper\"}", 28, 1, 13, 0, GROUPING_CHUNKS, ORDER_NAMED, all, SIGMA_LEFT,
         START_ZEROS, 0, 1, 13},
        {"{\"preset\": \"paper\"}", 36, 1, 16, 0, GROUPING_CHUNKS, ORDER_NAMED, all, SIGMA_LEFT,
         START_ZEROS, 0, 1, 13},
        {"{\"preset\": \"paper\", \"budget\": 4}", 28, 1, 4, 64, GROUPING_CHUNKS, ORDER_NAMED, all,
         SIGMA_LEFT, START_ZEROS, 0, 1, 13},
        {"{\"preset\": \"paper\", \"budget\": 392}", 28, 2, 196, 0, GROUPING_CHUNKS, ORDER_NAMED,
         all, SIGMA_LEFT, START_ZEROS, 0, 1, 13},
        {"{\"preset\": \"paper\", \"tie\": \"structured\", \"tie_factor\": 8}", 36, 1, 35, 0,
         GROUPING_CHUNKS, ORDER_NAMED, all, SIGMA_LEFT, START_ZEROS, 0, 1, 13},
        {"{\"preset\": \"peft\"}", 28, 64, 56, 0, GROUPING_FLOOR, ORDER_NAMED, qv, SIGMA_SQRT,
         START_ZEROS, 0, 1, 42},
        {"{\"preset\": \"peft\", \"weight_tying\": 0.875, \"u\": 1, \"targets\": [\"q_proj\", "
         "\"k_proj\", \"v_proj\", \"o_proj\", \"gate_proj\", \"up_proj\", \"down_proj\"]}",
         36, 1, 32, 0, GROUPING_FLOOR, ORDER_NAMED, all, SIGMA_SQRT, START_ZEROS, 0, 1, 42},
        {"{\"preset\": \"peft\", \"init\": \"uniform\", \"seed\": 5, \"sigma\": \"left\"}", 28, 64,
         56, 0, GROUPING_FLOOR, ORDER_NAMED, qv, SIGMA_LEFT, START_UNIFORM, 0.02, 1, 5},
        {"{\"preset\": \"anrgusc\"}", 28, 1, 13, 0, GROUPING_CHUNKS, ORDER_LAYER_SORTED, all,
         SIGMA_LEFT, START_NORMAL, 0.001, 1, 13},
        {"{\"preset\": \"anrgusc\", \"budget\": 120}", 28, 4, 28, 0, GROUPING_CHUNKS,
         ORDER_LAYER_SORTED, all, SIGMA_LEFT, START_NORMAL, 0.001, 0.25, 13},
        {"{\"preset\": \"anrgusc\", \"budget\": 120, \"scale\": 2, \"init\": \"zeros\"}", 28, 4, 28,
         0, GROUPING_CHUNKS, ORDER_LAYER_SORTED, all, SIGMA_LEFT, START_ZEROS, 0, 2, 13},
        {"{\"preset\": \"anrgusc\", \"budget\": 13}", 24, 1, 13, 0, GROUPING_CHUNKS,
         ORDER_LAYER_SORTED, all, SIGMA_LEFT, START_NORMAL, 0.001, 1, 13},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        RunSpec spec;
        AdapterSpec a = adapter_of(&spec, cases[i].text, cases[i].n_layers);
        const Plan *plan = &a.plan;
        if (plan->rank != 2 || plan->u != cases[i].u || plan->groups != cases[i].groups ||
            plan->tie_factor != cases[i].tie_factor || plan->grouping != cases[i].grouping ||
            plan->order != cases[i].order || a.targets != cases[i].targets ||
            a.sigma != cases[i].sigma || a.start != cases[i].start ||
            a.start_size != cases[i].start_size || (double)a.scale != cases[i].scale ||
            (int64_t)a.seed != cases[i].seed || plan->projection.law != PROJECTION_GAUSS ||
            plan->projection.shared || plan->dtype != TENSOR_F32) {
            fail_msg("%s over %d layers: u %d, %d groups", cases[i].text, cases[i].n_layers,
                     plan->u, plan->groups);
        }
        assert_int_equal(spec.adapter.budget, cases[i].u * cases[i].groups);
        adapter_spec_release(&a);
    }
}

/* What is stored of a run is its resolved settings: read again, they give the same adapter. */
/* Field by field: what lies between them has no value. */
static bool same_plan(const Plan *a, const Plan *b)
{
    return a->rank == b->rank && a->u == b->u && a->groups == b->groups && a->tie == b->tie &&
           a->grouping == b->grouping && a->tie_factor == b->tie_factor && a->order == b->order &&
           a->map == b->map && a->projection.law == b->projection.law &&
           a->projection.shared == b->projection.shared && a->dtype == b->dtype &&
           a->n_modules == b->n_modules && a->parameters == b->parameters && a->bytes == b->bytes &&
           a->degrees_of_freedom == b->degrees_of_freedom;
}

static void a_stored_spec_gives_the_same_plan_again(void **state)
{
    (void)state;
    const char *const texts[] = {"{\"preset\": \"anrgusc\", \"budget\": 120}",
                                 "{\"preset\": \"paper\", \"budget\": 4}",
                                 "{\"preset\": \"peft\"}",
                                 "{\"preset\": \"peft\", \"budget\": 13}",
                                 "{\"tie\": \"none\", \"u\": 3}",
                                 "{\"tie\": \"all\", \"u\": 3}",
                                 "{\"tie\": \"by-role\", \"budget\": 6, \"dtype\": \"bf16\"}",
                                 "{\"tie\": \"structured\", \"tie_factor\": 3}"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        RunSpec spec, again;
        Text shown = {0};
        ModelConfig model = model_of(28);
        AdapterSpec a = adapter_of(&spec, texts[i], 28), b;
        config_show(&spec, NULL, &shown);
        if (spec_from_json(&again, text_string(&shown), &error) ||
            cell_adapter(&b, &again, &model, &error)) {
            fail_msg("%s: %s", texts[i], error.message);
        }
        assert_true(same_plan(&a.plan, &b.plan));
        assert_true(a.scale == b.scale && a.start == b.start && a.start_size == b.start_size);
        assert_memory_equal(&spec.adapter.budget, &again.adapter.budget, sizeof(int));
        text_release(&shown);
    }
}

static void refuses(const char *text, int n_layers, Status status, const char *message)
{
    RunSpec spec;
    AdapterSpec adapter = {0};
    ModelConfig model = model_of(n_layers);
    memset(&error, 0, sizeof error);
    Status got = settle(&spec, text);
    got = got ? got : cell_adapter(&adapter, &spec, &model, &error);
    if (got != status || !strstr(error.message, message)) {
        fail_msg("%s: status %d: %s; wanted %d: %s", text, got, error.message, status, message);
    }
    adapter_spec_release(&adapter);
}

static void points_that_do_not_exist_are_refused_with_what_to_change(void **state)
{
    (void)state;
    refuses("{\"u\": 0}", 4, STATUS_USAGE, "adapter.u: 0: a group has at least 1 scalar");
    refuses("{\"groups\": 0}", 4, STATUS_USAGE, "adapter.groups: 0: there is at least 1 group");
    refuses("{\"u\": 1, \"groups\": 29}", 4, STATUS_USAGE,
            "adapter.groups: 29 groups over 28 modules: from 1 to 28 are possible");
    refuses("{\"u\": 2, \"groups\": 3, \"budget\": 13}", 4, STATUS_USAGE,
            "adapter.budget: 13 is not adapter.u x adapter.groups, 6; leave one of the three out");
    refuses("{\"map\": \"/dev/zero\"}", 4, STATUS_REFUSED,
            "tie map: /dev/zero: is not a regular file");
    refuses("{\"rank\": 33}", 4, STATUS_USAGE,
            "adapter.rank: module \"model.layers.0.self_attn.k_proj\" (32 x 64): rank 33, at most "
            "32");
    refuses("{\"targets\": [\"q_proj\", \"c_attn\"]}", 4, STATUS_USAGE,
            "\"c_attn\" is not a linear layer");
    refuses("{\"tie\": \"none\", \"budget\": 13}", 4, STATUS_USAGE,
            "adapter.budget: a budget of 13 scalars cannot be spent on 28 modules under tie rule "
            "\"none\"; the nearest is 28");
    refuses("{\"tie\": \"by-role\", \"budget\": 1}", 4, STATUS_USAGE,
            "cannot be spent on 28 modules under tie rule \"by-role\"; the nearest is 2");
    refuses("{\"weight_tying\": -0.5}", 4, STATUS_USAGE, "adapter.weight_tying: from 0 to 1");
    refuses("{\"weight_tying\": 0.5, \"tie_factor\": 2}", 4, STATUS_USAGE,
            "both make the groups; give one of them");
    refuses("{\"weight_tying\": 0.5, \"tie\": \"structured\"}", 4, STATUS_USAGE, "is PEFT's");
    refuses("{\"weight_tying\": 0.5, \"budget\": 13}", 4, STATUS_USAGE,
            "adapter.budget: 13 scalars cannot be spent on 14 groups of 1 each; the nearest are 0 "
            "and 14");
    refuses("{\"weight_tying\": 0.5, \"groups\": 13}", 4, STATUS_USAGE,
            "adapter.groups: 13, where 14 are made by adapter.weight_tying");
    refuses("{\"tie_factor\": 4, \"tie\": \"all\"}", 4, STATUS_USAGE, "adapter.tie_factor: cuts");
    refuses("{\"tie\": \"map\"}", 4, STATUS_USAGE,
            "adapter.map: must be given for the tie rule map");
    refuses("{\"map\": \"x\", \"tie\": \"tiled\"}", 4, STATUS_USAGE,
            "adapter.map: is read by adapter.tie map alone");
    refuses("{\"alpha\": 2, \"scale\": 3}", 4, STATUS_USAGE,
            "adapter.alpha: it and adapter.scale both give s");
    refuses("{\"init_size\": 0.1}", 4, STATUS_USAGE, "adapter.init_size: has no meaning");
    refuses("{\"preset\": \"pfet\"}", 4, STATUS_USAGE, "the nearest is \"peft\"");
    refuses("{\"rank\": 16, \"u\": 100000, \"groups\": 1000}", 200, STATUS_USAGE,
            "P would take 133.5 GiB, at most 8");
}

/* A map's path may be anything and move; its contents are the run's. */
static void the_hash_of_a_map_is_in_the_identity_and_checked(void **state)
{
    (void)state;
    const IdentityInputs inputs = {"c", "g", "w", "t", "d", "h"};
    RunSpec spec;
    char text[512], sha256[SHA256_HEX_SIZE];
    Text before = {0}, after = {0};
    snprintf(text, sizeof text,
             "{\"map\": \"map.json\", \"targets\": [\"v_proj\"], \"budget\": 6}");
    write_file(map_path, "{\"model.layers.0.self_attn.v_proj\": 1, "
                         "\"model.layers.1.self_attn.v_proj\": 0}");
    AdapterSpec a = adapter_of(&spec, text, 2);
    assert_int_equal(a.plan.tie, TIE_MAP);
    assert_int_equal(a.plan.groups, 2);
    assert_int_equal(a.plan.u, 3);
    assert_int_equal(a.plan.map[0], 1);
    assert_int_equal(a.plan.map[1], 0);
    assert_int_equal(sha256_file(sha256, map_path, &error), STATUS_OK);
    assert_string_equal(spec.adapter.map_sha256, sha256);
    assert_string_equal(spec.adapter.map, map_path); /* whole */
    identity_json(&before, &spec, &inputs);
    assert_non_null(strstr(text_string(&before), sha256));
    assert_null(strstr(text_string(&before), map_path));
    adapter_spec_release(&a);

    write_file(map_path, "{\"model.layers.0.self_attn.v_proj\": 0, "
                         "\"model.layers.1.self_attn.v_proj\": 0}");
    ModelConfig model = model_of(2);
    assert_int_equal(cell_adapter(&a, &spec, &model, &error), STATUS_REFUSED);
    assert_non_null(strstr(error.message, "its SHA-256 is "));
    adapter_spec_release(&a);
    a = adapter_of(&spec, text, 2);
    assert_int_equal(a.plan.groups, 1);
    identity_json(&after, &spec, &inputs);
    assert_string_not_equal(text_string(&before), text_string(&after));
    adapter_spec_release(&a);
    refuses("{\"map\": \"map.json\", \"targets\": [\"v_proj\"], \"groups\": 2}", 2, STATUS_USAGE,
            "adapter.groups: 2, where 1 are made by adapter.map");
    refuses("{\"map\": \"map.json\"}", 2, STATUS_REFUSED,
            "module \"model.layers.0.self_attn.q_proj\" has no group");
    text_release(&before);
    text_release(&after);
}

/* The run_ids are those that the program gave before it knew these settings (at NUMERICS_VERSION
 * 3).
 */
static void defaults_of_later_settings_leave_identities_alone(void **state)
{
    (void)state;
    const IdentityInputs inputs = {"c", "g", "w", "t", "d", "h"};
    const char *const later[] = {
        "tie_factor", "map_sha256", "order",     "sigma", "projection", "projection_shared",
        "alpha",      "init",       "init_size", "dtype", "preset",     "weight_tying",
        "rslora",     "dropout"};
    RunSpec spec;
    Text identity = {0};
    char run_id[RUN_ID_SIZE];
    adapter_of(&spec, "{\"budget\": 13}", 28);
    identity_json(&identity, &spec, &inputs);
    for (size_t i = 0; i < sizeof later / sizeof later[0]; i++) {
        char key[64];
        snprintf(key, sizeof key, "\"adapter.%s\"", later[i]);
        assert_null(strstr(text_string(&identity), key));
    }
    identity_run_id(run_id, &identity);
    assert_string_equal(run_id, "3281d156092ab860");
    text_release(&identity);
}

/* s = alpha / r as PEFT; what is not LoRA's is no part of its runs. */
static void the_classic_lora_is_its_settings(void **state)
{
    (void)state;
    const IdentityInputs inputs = {"c", "g", "w", "t", "d", "h"};
    ModelConfig model = model_of(3);
    RunSpec spec;
    Text identity = {0}, other = {0};
    char run_id[RUN_ID_SIZE];
    AdapterSpec a = adapter_of(&spec,
                               "{\"method\": \"lora\", \"rank\": 16, \"alpha\": 32, \"dropout\": "
                               "0.05, \"targets\": [\"q_proj\", \"v_proj\"]}",
                               3);
    assert_string_equal(a.method, "lora");
    assert_int_equal(a.plan.rank, 16);
    assert_true(a.scale == 2 && a.dropout == 0.05);
    assert_int_equal(adapter_spec_parameters(&a, &model), 3 * 16 * ((64 + 64) + (64 + 32)));
    identity_json(&identity, &spec, &inputs);
    assert_non_null(
        strstr(text_string(&identity), "\"adapter.alpha\":32,\"adapter.dropout\":0.05,"));
    assert_null(strstr(text_string(&identity), "adapter.u"));
    assert_null(strstr(text_string(&identity), "adapter.sigma"));
    a = adapter_of(&spec,
                   "{\"method\": \"lora\", \"rank\": 16, \"alpha\": 32, \"dropout\": 0.05, "
                   "\"targets\": [\"q_proj\", \"v_proj\"], \"budget\": 13, \"sigma\": \"sqrt\"}",
                   3);
    identity_json(&other, &spec, &inputs);
    assert_string_equal(text_string(&identity), text_string(&other));
    a = adapter_of(&spec, "{\"method\": \"lora\", \"rank\": 16, \"alpha\": 32, \"rslora\": true}",
                   3);
    assert_true(a.scale == 8 && a.dropout == 0);
    a = adapter_of(&spec, "{\"method\": \"lora\", \"rank\": 40, \"scale\": 0.5}", 3);
    assert_true(a.scale == 0.5f); /* a rank above k's 32 rows is allowed */
    a = adapter_of(&spec,
                   "{\"method\": \"lora-xs\", \"rank\": 25, \"sigma\": \"sqrt\", \"init\": "
                   "\"normal\", \"init_size\": 1e-5, \"dropout\": 0.5}",
                   3);
    assert_true(a.sigma == SIGMA_SQRT && a.start == START_NORMAL && a.start_size == 1e-5);
    assert_true(a.dropout == 0 && a.scale == 1);
    assert_int_equal(adapter_spec_parameters(&a, &model), 3 * 7 * 625);
    a = adapter_of(&spec, "{\"method\": \"lora\"}", 3); /* r 8, alpha 8 in PEFT */
    assert_true(a.plan.rank == 8 && a.scale == 1 && a.dropout == 0);
    a = adapter_of(&spec, "{\"method\": \"lora-xs\"}", 3);
    assert_true(a.plan.rank == 8 && a.scale == 1 && a.start == START_ZEROS);
    a = adapter_of(&spec, "{\"method\": \"lora\", \"rank\": 2}", 3);
    assert_int_equal(a.plan.rank, 2);
    text_clear(&identity);
    identity_json(&identity, &spec, &inputs);
    identity_run_id(run_id, &identity);
    assert_string_equal(run_id, "d3cbb57824d7db9d"); /* as before 8 was the default */
    refuses("{\"method\": \"lora-xs\", \"rank\": 33}", 3, STATUS_USAGE,
            "adapter.rank: module \"model.layers.0.self_attn.k_proj\" (32 x 64): rank 33, at most "
            "32");
    refuses("{\"method\": \"lora\", \"dropout\": 1}", 3, STATUS_USAGE, "adapter.dropout");
    refuses("{\"method\": \"lora\", \"dropout\": -0.1}", 3, STATUS_USAGE, "adapter.dropout");
    refuses("{\"method\": \"lora\", \"alpha\": -1}", 3, STATUS_USAGE, "adapter.alpha");
    refuses("{\"method\": \"lora\", \"alpha\": 8, \"scale\": 2}", 3, STATUS_USAGE,
            "adapter.alpha: it and adapter.scale both give s");
    refuses("{\"method\": \"lora\", \"rank\": 0}", 3, STATUS_USAGE, "adapter.rank");
    refuses("{\"method\": \"lora\", \"targets\": []}", 3, STATUS_USAGE, "adapter.targets");
    refuses("{\"method\": \"lora\", \"targets\": [\"qkv_proj\"]}", 3, STATUS_USAGE,
            "\"qkv_proj\" is not a linear layer");
    text_release(&identity);
    text_release(&other);
}

static double no_time(void *context)
{
    (void)context;
    return 0;
}

/* Before anything is read or stored. */
static void an_import_larger_than_a_row_of_sqlite_is_refused(void **state)
{
    (void)state;
    const World world = {.now_s = no_time};
    RunAdapter adapter = {.name = "adapter \"big\"", .n = 240000001};
    char run_id[RUN_ID_SIZE];
    assert_int_equal(carry_import(run_id, NULL, &world, &adapter, "nowhere", NULL, &error),
                     STATUS_USAGE);
    assert_string_equal(error.message,
                        "adapter \"big\" has 240000001 parameters, a row of results.db holds "
                        "240000000; use it as --adapter, a merged model as --model");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(presets_are_the_points_that_their_tools_stand_at),
        cmocka_unit_test(a_stored_spec_gives_the_same_plan_again),
        cmocka_unit_test(points_that_do_not_exist_are_refused_with_what_to_change),
        cmocka_unit_test(the_hash_of_a_map_is_in_the_identity_and_checked),
        cmocka_unit_test(defaults_of_later_settings_leave_identities_alone),
        cmocka_unit_test(the_classic_lora_is_its_settings),
        cmocka_unit_test(an_import_larger_than_a_row_of_sqlite_is_refused),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
