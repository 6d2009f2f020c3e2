/* What a run computes, as canonical JSON, and its hash. Two runs with one identity would be the
 * same numbers: the work is never done twice; whatever can change a number is in it (settings that
 * apply, the plan, model, tokenizer and data by their hashes, the version of the numerics), and
 * nothing else (names, paths, threads). */
#pragma once
#include "core/sha256.h"
#include "experiments/settings.h"

/* Raised by every change of the program that changes a number somewhere. */
enum { NUMERICS_VERSION = 3, RUN_ID_SIZE = 17 };

typedef struct {
    const char *config_sha256,
        *generation_sha256; /* config.json; generation_config.json, "" without */
    const char *weights_sha256, *tokenizer_sha256;
    const char *train_sha256;
    const char *held_out_sha256; /* of the rows that give the objective; "" without */
} IdentityInputs;

/* Append the canonical JSON: keys sorted, no blanks, numbers with the fewest digits that read back
 * the same. spec: settled, with its plan filled in. */
void identity_json(Text *out, const RunSpec *spec, const IdentityInputs *inputs);

/* What else than settings goes into an identity. value: JSON. */
typedef struct {
    const char *key, *value;
} IdentityMember;
/* The same canonical JSON from the settings that apply and any members. */
void identity_members(Text *out, const RunSpec *spec, const IdentityMember *members, size_t n);

/* What differs between two identities, a line a key: `data.template: "plain" -> "qa"`; hashes are
 * cut and have the name of their model or data file beside them. keys: those that differ, divided
 * by ", ". */
void identity_diff(Text *lines, Text *keys, const char *before, const char *after,
                   const char *model, const char *data);
/* Do all members of the two whose keys start with the prefix agree? key: the first that
 * does not. */
bool identity_agrees(const char *one, const char *other, const char *prefix, char key[128]);

/* run_id: the first 16 hex digits of the SHA-256 of the canonical JSON. */
void identity_run_id(char run_id[RUN_ID_SIZE], const Text *identity);
