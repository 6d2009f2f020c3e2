/* Reading a parsed tree. */
#include "core/json.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/json_tree.h"

uint32_t json_hash_key(const char *key, size_t n)
{
    uint64_t hash = 0x9e3779b97f4a7c15u ^ n;
    while (n >= 8) {
        uint64_t word;
        memcpy(&word, key, 8);
        hash = (hash ^ word) * 0xff51afd7ed558ccdu;
        hash ^= hash >> 32;
        key += 8;
        n -= 8;
    }
    uint64_t word = 0;
    memcpy(&word, key, n);
    hash = (hash ^ word) * 0xc4ceb9fe1a85ec53u;
    return (uint32_t)(hash >> 32) ^ (uint32_t)hash;
}

size_t json_table_slots(size_t n_members)
{
    size_t n = 16;
    while (n < 2 * n_members) {
        n *= 2;
    }
    return n;
}

const Member *json_find_member(const Member *members, size_t n_table, const char *key,
                               uint32_t hash, uint32_t **free_slot)
{
    uint32_t *slots = (uint32_t *)(uintptr_t)(members + n_table);
    size_t mask = json_table_slots(n_table) - 1;
    size_t slot = hash & mask;
    for (; slots[slot]; slot = (slot + 1) & mask) {
        const Member *member = &members[slots[slot] - 1];
        if (member->hash == hash && strcmp(member->key, key) == 0) {
            return member;
        }
    }
    if (free_slot) {
        *free_slot = &slots[slot];
    }
    return NULL;
}

void json_free(JsonDocument *document)
{
    if (!document) {
        return;
    }
    for (Block *block = document->blocks, *next; block; block = next) {
        next = block->next;
        free(block);
    }
    free(document->text);
    free(document);
}

const Json *json_root(const JsonDocument *document)
{
    return &document->root;
}

const char *json_sha256(const JsonDocument *document)
{
    return document->sha256;
}

JsonKind json_kind(const Json *value)
{
    return value ? (JsonKind)value->kind : JSON_NULL;
}

const char *json_kind_name(JsonKind kind)
{
    static const char *const names[] = {"null",     "a boolean", "a boolean", "a number",
                                        "a string", "an array",  "an object"};
    return names[kind];
}

size_t json_size(const Json *value)
{
    JsonKind kind = json_kind(value);
    return kind == JSON_ARRAY || kind == JSON_OBJECT ? value->n : 0;
}

const Json *json_get(const Json *object, const char *key)
{
    if (json_kind(object) != JSON_OBJECT) {
        return NULL;
    }
    const Member *members = object->as.members;
    if (object->n > SMALL_OBJECT) {
        const Member *found =
            json_find_member(members, object->n, key, json_hash_key(key, strlen(key)), NULL);
        return found ? &found->value : NULL;
    }
    for (size_t i = 0; i < object->n; i++) {
        if (strcmp(members[i].key, key) == 0) {
            return &members[i].value;
        }
    }
    return NULL;
}

const Json *json_at(const Json *value, size_t i)
{
    if (i >= json_size(value)) {
        return NULL;
    }
    return json_kind(value) == JSON_ARRAY ? &value->as.elements[i] : &value->as.members[i].value;
}

const char *json_key(const Json *object, size_t i)
{
    return json_kind(object) == JSON_OBJECT && i < object->n ? object->as.members[i].key : NULL;
}

const char *json_string(const Json *value, size_t *n)
{
    if (json_kind(value) != JSON_STRING || (!n && memchr(value->as.text, 0, value->n))) {
        return NULL;
    }
    if (n) {
        *n = value->n;
    }
    return value->as.text;
}

const char *json_number_text(const Json *value)
{
    return json_kind(value) == JSON_NUMBER ? value->as.text : NULL;
}

/* The text is sign, digits, optional fraction, optional exponent: digits * 10^(exponent - fraction
 * digits). */
bool json_int64(const Json *value, int64_t *out)
{
    const char *s = json_number_text(value);
    if (!s) {
        return false;
    }
    bool negative = *s == '-';
    s += negative;
    size_t n_digits = strspn(s, "0123456789");
    size_t n_fraction = s[n_digits] == '.' ? strspn(s + n_digits + 1, "0123456789") : 0;
    const char *e = s + n_digits + (n_fraction ? n_fraction + 1 : 0);
    long exponent = *e ? strtol(e + 1, NULL, 10) : 0; /* saturates */
    exponent = exponent > 1000000 ? 1000000 : exponent < -1000000 ? -1000000 : exponent;
    long shift = exponent - (long)n_fraction;
    size_t n =
        n_digits + n_fraction; /* digits in all; those from `whole` on are behind the point */
    long whole = (long)n + (shift < 0 ? shift : 0);
    uint64_t magnitude = 0;
    bool fits = true;
    for (size_t i = 0; i < n; i++) {
        int digit = s[i < n_digits ? i : i + 1] - '0';
        if ((long)i >= whole) {
            fits = fits && digit == 0;
        } else {
            fits = fits && !__builtin_mul_overflow(magnitude, (uint64_t)10, &magnitude) &&
                   !__builtin_add_overflow(magnitude, (uint64_t)digit, &magnitude);
        }
    }
    for (long i = 0; i < shift && magnitude && fits; i++) {
        fits = !__builtin_mul_overflow(magnitude, (uint64_t)10, &magnitude);
    }
    if (!fits || magnitude > (uint64_t)INT64_MAX + negative) {
        return false;
    }
    *out = negative ? (int64_t)(0 - magnitude) : (int64_t)magnitude;
    return true;
}

bool json_double(const Json *value, double *out)
{
    const char *s = json_number_text(value);
    if (!s) {
        return false;
    }
    double number = strtod(s, NULL);
    if (!isfinite(number)) {
        return false;
    }
    *out = number;
    return true;
}

bool json_bool(const Json *value, bool *out)
{
    JsonKind kind = json_kind(value);
    if (kind != JSON_TRUE && kind != JSON_FALSE) {
        return false;
    }
    *out = kind == JSON_TRUE;
    return true;
}

int json_line(const Json *value)
{
    return value ? (int)value->line : 0;
}

void json_write(const Json *value, Text *out)
{
    size_t n_text = 0;
    const char *text = json_string(value, &n_text);
    bool object = json_kind(value) == JSON_OBJECT;
    switch (json_kind(value)) {
    case JSON_NULL:
        text_add(out, "null");
        break;
    case JSON_FALSE:
    case JSON_TRUE:
        text_add(out, json_kind(value) == JSON_TRUE ? "true" : "false");
        break;
    case JSON_NUMBER:
        text_add(out, json_number_text(value));
        break;
    case JSON_STRING:
        text_json_string(out, text, n_text);
        break;
    case JSON_ARRAY:
    case JSON_OBJECT:
        text_add(out, object ? "{" : "[");
        for (size_t i = 0; i < json_size(value); i++) {
            text_add(out, i ? ", " : "");
            if (object) {
                const char *key = value->as.members[i].key;
                text_json_string(out, key, strlen(key));
                text_add(out, ": ");
            }
            json_write(json_at(value, i), out);
        }
        text_add(out, object ? "}" : "]");
        break;
    }
}
