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
    add_string(&members, "model.config_sha256", inputs->config_sha256);
    add_string(&members, "model.generation_sha256", inputs->generation_sha256);
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
