/* Members are collected as "key":value strings and sorted, so that the table's order does not
 * matter. */
#include "experiments/identity.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "rl/chat.h"

enum { MAX_MEMBERS = 256, SHOWN_BYTES = 60, SHOWN_DIGITS = 12 };

typedef struct {
    char *members[MAX_MEMBERS];
    size_t n;
} Members;

static void add_member(Members *members, const char *key, const char *value)
{
    Text member = {0};
    text_json_string(&member, key, strlen(key));
    text_add(&member, ":");
    text_add(&member, value);
    if (members->n < MAX_MEMBERS) {
        members->members[members->n++] = member.bytes;
    }
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

/* What stands behind a chat template's name, by what it makes of a question; with the rows and the
 * tokenizer, which are hashed too, that is every prompt. */
static void add_template(Members *members, const ChatTemplate *chat)
{
    static const ChatMessage question = {CHAT_USER, "{question}", 10};
    ChatParts parts = {0};
    Text text = {0};
    char value[SHA256_HEX_SIZE + 2] = "\"";
    chat_render(&parts, chat, &question, 1);
    chat_parts_text(&text, &parts);
    text_add(&text, chat->before_answer);
    text_add(&text, chat->turn_end);
    sha256_bytes(value + 1, text_string(&text), text.n);
    strcat(value, "\"");
    add_member(members, "data.template_sha256", value);
    text_release(&text);
    chat_parts_release(&parts);
}

void identity_members(Text *out, const RunSpec *spec, const IdentityMember *members, size_t n)
{
    Members all = {0};
    RunSpec defaults;
    settings_default(&defaults);
    for (size_t i = 0; i < settings_count(); i++) {
        const Setting *setting = setting_at(i);
        bool reward = strncmp(setting->path, "reward.", 7) == 0;
        if (setting->flags & SETTING_NO_NUMBERS || !setting_applies(spec, setting) ||
            (setting->flags & SETTING_LATER && setting_same(spec, &defaults, setting))) {
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
            add_member(&all, text_string(&key), text_string(&value));
            text_release(&key);
            text_release(&value);
        }
    }
    const ChatTemplate *chat = chat_template_find(spec->data.template);
    if (chat) {
        add_template(&all, chat);
    }
    for (size_t i = 0; i < n; i++) {
        add_member(&all, members[i].key, members[i].value);
    }
    write_members(&all, out);
}

void identity_json(Text *out, const RunSpec *spec, const IdentityInputs *inputs)
{
    const struct {
        const char *key, *string;
    } strings[] = {{"model.config_sha256", inputs->config_sha256},
                   {"model.generation_sha256", inputs->generation_sha256},
                   {"model.weights_sha256", inputs->weights_sha256},
                   {"model.tokenizer_sha256", inputs->tokenizer_sha256},
                   {"data.train_sha256", inputs->train_sha256},
                   {"data.held_out_sha256", inputs->held_out_sha256}};
    enum { N = sizeof strings / sizeof strings[0] };
    Text values[N + 1] = {0};
    IdentityMember members[N + 1];
    for (size_t i = 0; i < N; i++) {
        text_json_string(&values[i], strings[i].string, strlen(strings[i].string));
        members[i] = (IdentityMember){strings[i].key, text_string(&values[i])};
    }
    text_printf(&values[N], "%d", NUMERICS_VERSION);
    members[N] = (IdentityMember){"numerics", text_string(&values[N])};
    identity_members(out, spec, members, N + 1);
    for (size_t i = 0; i <= N; i++) {
        text_release(&values[i]);
    }
}

/* A member's value as a person reads it; hash: its first digits. */
static void show_value(Text *out, const Json *value, bool hash)
{
    size_t n = 0;
    const char *string = json_string(value, &n);
    if (hash && string) {
        text_printf(out, n ? "%.*s.." : "(none)", SHOWN_DIGITS, string);
    } else if (string) {
        text_json_string(out, string, n < SHOWN_BYTES ? n : SHOWN_BYTES);
        text_add(out, n > SHOWN_BYTES ? ".." : "");
    } else if (json_kind(value) == JSON_ARRAY) {
        for (size_t i = 0; i < json_size(value); i++) {
            text_add(out, i ? ", " : "[");
            show_value(out, json_at(value, i), false);
        }
        text_add(out, "]");
    } else if (json_kind(value) == JSON_NUMBER) {
        text_add(out, json_number_text(value));
    } else {
        text_add(out, !value ? "(not there)" : json_kind(value) == JSON_TRUE ? "true" : "false");
    }
}

static bool same_value(const Json *one, const Json *other)
{
    Text first = {0}, second = {0};
    size_t n_first = 0, n_second = 0;
    const char *a = json_string(one, &n_first), *b = json_string(other, &n_second);
    if (a && b) {
        return n_first == n_second && memcmp(a, b, n_first) == 0;
    }
    show_value(&first, one, false);
    show_value(&second, other, false);
    bool same = strcmp(text_string(&first), text_string(&second)) == 0;
    text_release(&first);
    text_release(&second);
    return same;
}

static void show_difference(Text *lines, Text *keys, const char *key, const Json *before,
                            const Json *after, const char *model, const char *data)
{
    bool hash = strlen(key) > 7 && strcmp(key + strlen(key) - 7, "_sha256") == 0;
    const char *name = !hash                            ? NULL
                       : strncmp(key, "model.", 6) == 0 ? model
                       : strncmp(key, "data.", 5) == 0  ? data
                                                        : NULL;
    text_printf(keys, "%s%s", keys->n ? ", " : "", key);
    text_add(lines, key);
    if (name) {
        text_printf(lines, " (%s)", name);
    }
    text_add(lines, ": ");
    show_value(lines, before, hash);
    text_add(lines, " -> ");
    show_value(lines, after, hash);
    text_add(lines, "\n");
}

void identity_diff(Text *lines, Text *keys, const char *before, const char *after,
                   const char *model, const char *data)
{
    JsonDocument *documents[2] = {0};
    if (json_parse(&documents[0], before, strlen(before), NULL) == STATUS_OK &&
        json_parse(&documents[1], after, strlen(after), NULL) == STATUS_OK) {
        const Json *old = json_root(documents[0]), *new = json_root(documents[1]);
        for (size_t i = 0; i < json_size(old); i++) {
            const char *key = json_key(old, i);
            if (!same_value(json_at(old, i), json_get(new, key))) {
                show_difference(lines, keys, key, json_at(old, i), json_get(new, key), model, data);
            }
        }
        for (size_t i = 0; i < json_size(new); i++) {
            const char *key = json_key(new, i);
            if (!json_get(old, key)) {
                show_difference(lines, keys, key, NULL, json_at(new, i), model, data);
            }
        }
    }
    json_free(documents[0]);
    json_free(documents[1]);
}

bool identity_agrees(const char *one, const char *other, const char *prefix, char key[128])
{
    JsonDocument *documents[2] = {0};
    bool agrees = json_parse(&documents[0], one, strlen(one), NULL) == STATUS_OK &&
                  json_parse(&documents[1], other, strlen(other), NULL) == STATUS_OK;
    for (int side = 0; side < 2 && agrees; side++) {
        const Json *here = json_root(documents[side]), *there = json_root(documents[1 - side]);
        for (size_t i = 0; i < json_size(here) && agrees; i++) {
            const char *name = json_key(here, i);
            if (strncmp(name, prefix, strlen(prefix)) == 0 &&
                !same_value(json_at(here, i), json_get(there, name))) {
                agrees = false;
                snprintf(key, 128, "%s", name);
            }
        }
    }
    json_free(documents[0]);
    json_free(documents[1]);
    return agrees;
}

void identity_run_id(char run_id[RUN_ID_SIZE], const Text *identity)
{
    char hex[SHA256_HEX_SIZE];
    sha256_bytes(hex, text_string(identity), identity->n);
    memcpy(run_id, hex, RUN_ID_SIZE - 1);
    run_id[RUN_ID_SIZE - 1] = 0;
}
