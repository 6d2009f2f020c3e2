/* How a parsed tree lies in memory (private to json.c, which reads it, and json_parse.c, which
 * makes it). */
#pragma once
#include "core/json.h"

enum { SMALL_OBJECT = 8 }; /* members up to which an object has no hash table */

typedef struct Member Member;

struct Json {
    uint8_t kind;
    uint32_t line;
    size_t n; /* bytes of a string or number, children of an array or object */
    union {
        const char *text;
        const Json *elements;
        const Member *members;
    } as;
};

struct Member {
    const char *key;
    uint32_t hash;
    Json value;
};

typedef struct Block Block;
struct Block {
    Block *next;
    size_t used, capacity;
    _Alignas(16) char bytes[];
};

struct JsonDocument {
    char *text;
    Block *blocks;
    Json root;
    size_t taken; /* bytes of the tree, of at most MAX_TREE */
    char sha256[SHA256_HEX_SIZE];
};

uint32_t json_hash_key(const char *key, size_t n);
/* Slots of an object's hash table: a power of two, at least twice the members. */
size_t json_table_slots(size_t n_members);
/* The member of that name of an object with a table of n_table members, or NULL; then *free_slot,
 * unless NULL, is where its index belongs. */
const Member *json_find_member(const Member *members, size_t n_table, const char *key,
                               uint32_t hash, uint32_t **free_slot);
