/* Members are collected as "key":value strings and sorted, so that the table's order does not
 * matter. */
#include "experiments/identity.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_MEMBERS = 256 };

typedef struct {
    char *members[MAX_MEMBERS];
    size_t n;
} Members;

static void add_member(Members *members, const char *key, const Text *value)
{
    Text member = {0};
    text_json_string(&member, key, strlen(key));
    text_add(&member, ":");
    text_add(&member, text_string(value));
    if (members->n < MAX_MEMBERS) {
        members->members[members->n++] = member.bytes;
    }
}

static void add_string(Members *members, const char *key, const char *string)
{
    Text value = {0};
    text_json_string(&value, string, strlen(string));
    add_member(members, key, &value);
    text_release(&value);
}

static void add_number(Members *members, const char *key, double number)
{
    Text value = {0};
    text_json_number(&value, number);
    add_member(members, key, &value);
    text_release(&value);
}

static int by_key(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void write_members(Members *members, Text *out)
{
    qsort(members->members, members->n, sizeof members->members[0], by_key);
    text_add(out, "{");
    for (size_t i = 0; i < members->n; i++) {
        text_add(out, i ? "," : "");
        text_add(out, members->members[i]);
        free(members->members[i]);
    }
    text_add(out, "}");
}

/* config.json by its meaning: a comment or another order of keys is no other model. */
static void model_json(const ModelConfig *model, Text *out)
{
    Members members = {0};
    add_number(&members, "architecture", (double)model->architecture);
    add_number(&members, "n_layers", model->n_layers);
    add_number(&members, "width", model->width);
    add_number(&members, "n_heads", model->n_heads);
    add_number(&members, "n_kv_heads", model->n_kv_heads);
    add_number(&members, "head_dim", model->head_dim);
    add_number(&members, "ff_width", model->ff_width);
    add_number(&members, "vocab_size", model->vocab_size);
    add_number(&members, "max_positions", model->max_positions);
    add_number(&members, "rope_theta", model->rope_theta);
    add_number(&members, "rms_eps", model->rms_eps);
    add_number(&members, "tied_head", model->tied_head);
    add_number(&members, "attention_bias", model->attention_bias);
    add_number(&members, "output_bias", model->output_bias);
    add_number(&members, "mlp_bias", model->mlp_bias);
    add_number(&members, "bos_id", model->bos_id);
    Text stops = {0};
    for (int i = 0; i < model->n_eos; i++) {
        text_printf(&stops, "%s%d", i ? "," : "[", model->eos_ids[i]);
    }
    text_add(&stops, model->n_eos ? "]" : "[]");
    add_member(&members, "eos_ids", &stops);
    text_release(&stops);
    write_members(&members, out);
}

void identity_json(Text *out, const RunSpec *spec, const IdentityInputs *inputs)
{
    Members members = {0};
    for (size_t i = 0; i < settings_count(); i++) {
        const Setting *setting = setting_at(i);
        bool reward = strncmp(setting->path, "reward.", 7) == 0;
        if (setting->flags & SETTING_NO_NUMBERS || !setting_applies(spec, setting)) {
            continue;
        }
        for (int j = 0; j < (reward ? spec->n_rewards : 1); j++) {
            Text key = {0}, value = {0};
            text_add(&key, setting->path);
            if (reward && j > 0) {
                text_clear(&key);
                text_printf(&key, "reward.%d%s", j, setting->path + 6);
            }
            setting_value_json(spec, setting, j, &value);
            add_member(&members, text_string(&key), &value);
            text_release(&key);
            text_release(&value);
        }
    }
    Text model = {0};
    model_json(inputs->model, &model);
    add_member(&members, "model.config", &model);
    text_release(&model);
    add_string(&members, "model.weights_sha256", inputs->weights_sha256);
    add_string(&members, "model.tokenizer_sha256", inputs->tokenizer_sha256);
    add_string(&members, "data.train_sha256", inputs->train_sha256);
    add_string(&members, "data.held_out_sha256", inputs->held_out_sha256);
    add_number(&members, "numerics", NUMERICS_VERSION);
    write_members(&members, out);
}

void identity_run_id(char run_id[RUN_ID_SIZE], const Text *identity)
{
    char hex[SHA256_HEX_SIZE];
    sha256_bytes(hex, text_string(identity), identity->n);
    memcpy(run_id, hex, RUN_ID_SIZE - 1);
    run_id[RUN_ID_SIZE - 1] = 0;
}
