/* `verify` and models by name: the sandbox denies, hashes are of what was parsed, Hugging Face's
 * cache is found. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sys/stat.h>

#include "core/file.h"
#include "core/json.h"
#include "core/sha256.h"
#include "tests/cli_run.h"

#define ABACUS SOURCE_DIR "/models/abacus"
#define HASH "0123456789abcdef0123456789abcdef01234567"
#define REPOSITORY "hub/models--lab--Abacus-1"

static void shell(const char *command)
{
    if (system(command)) {
        fail_msg("%s", command);
    }
}

/* `tinylora ARGUMENTS`, its exit code and what stderr must contain. */
static void refuse(const char *arguments, int code, const char *says)
{
    Run r = run(arguments);
    if (r.code != code || !strstr(r.err, says)) {
        fail_msg("%s: %d %s", arguments, r.code, r.err);
    }
    assert_string_equal(r.out, "");
    run_free(&r);
}

static void hashes_are_of_the_files(void **state)
{
    (void)state;
    Run r = run("verify " ABACUS " --hashes -o json");
    if (r.code) {
        fail_msg("%s", r.err);
    }
    JsonDocument *document = NULL;
    assert_int_equal(json_parse(&document, r.out, strlen(r.out), NULL), STATUS_OK);
    const Json *files = json_get(json_root(document), "files");
    assert_true(json_size(files) >= 3);
    for (size_t i = 0; i < json_size(files); i++) {
        char path[FILE_PATH_MAX], sha256[SHA256_HEX_SIZE];
        snprintf(path, sizeof path, ABACUS "/%s", json_key(files, i));
        assert_int_equal(sha256_file(sha256, path, NULL), STATUS_OK);
        assert_string_equal(json_string(json_at(files, i), NULL), sha256);
    }
    const Json *sandbox = json_get(json_root(document), "sandbox");
    bool limits = false;
    assert_true(json_bool(json_get(sandbox, "limits"), &limits) && limits);
    assert_non_null(json_number_text(json_get(sandbox, "landlock")));
    char arguments[256];
    snprintf(arguments, sizeof arguments, "verify " ABACUS " --sha256 %s",
             json_string(json_get(files, "model.safetensors"), NULL));
    json_free(document);
    run_free(&r);
    r = run(arguments);
    assert_int_equal(r.code, 0);
    run_free(&r);
    run_write("math.jsonl", "{\"question\": \"1+1\", \"answer\": \"#### 2\"}\n");
    char sha256[SHA256_HEX_SIZE];
    assert_int_equal(sha256_file(sha256, "math.jsonl", NULL), STATUS_OK);
    snprintf(arguments, sizeof arguments, "verify math.jsonl --sha256 %s", sha256);
    r = run(arguments);
    assert_int_equal(r.code, 0);
    run_free(&r);
    refuse("verify " ABACUS "/config.json --sha256 "
           "0000000000000000000000000000000000000000000000000000000000000000",
           3, "config.json\": its SHA-256 is ");
}

static void files_in_disguise_are_told(void **state)
{
    (void)state;
    shell("mkdir disguised && cp " ABACUS "/*.json disguised/");
    run_write("disguised/model.safetensors", "version https://git-lfs.github.com/spec/v1\n"
                                             "oid sha256:00\nsize 9\n");
    refuse("verify disguised", 3,
           "disguised/model.safetensors: is a git-lfs pointer, not the file itself (run git lfs "
           "pull)");
    run_write("disguised/config.json", "<!DOCTYPE html><html>Entry not found</html>");
    refuse("model info disguised", 3,
           "disguised/config.json: not JSON: is an HTML page, not the file itself");
    shell("cp " ABACUS "/config.json disguised/ && rm disguised/model.safetensors");
    refuse("verify disguised", 3, "disguised: has no model.safetensors");
    shell("cp " ABACUS "/model.safetensors disguised/");
    run_write("disguised/tokenizer_config.json", "{\"chat_template\": ");
    refuse("verify disguised", 3, "disguised/tokenizer_config.json: line 1, column 19: the text");
    refuse("model info disguised", 3,
           "disguised/tokenizer_config.json: line 1, column 19: the text");
    shell("rm disguised/tokenizer.json");
    refuse("tokenize --model disguised --text x", 3, "model \"disguised\": it has no tokenizer");
}

/* Said by name also where the sandbox would not let anyone look. */
static void a_shard_outside_the_model_is_refused(void **state)
{
    (void)state;
    shell("mkdir linked && cp " ABACUS "/config.json linked/ && "
          "cp " ABACUS "/model.safetensors outside && ln -s ../outside linked/one.safetensors");
    run_write("linked/model.safetensors.index.json",
              "{\"weight_map\": {\"a\": \"one.safetensors\"}}");
    refuse("verify linked", 3,
           "linked/one.safetensors: is a link that leaves the model directory, to ");
}

static void a_model_is_found_in_the_cache_of_hugging_face(void **state)
{
    (void)state;
    shell("mkdir -p " REPOSITORY "/blobs " REPOSITORY "/refs " REPOSITORY "/snapshots/" HASH);
    run_write(REPOSITORY "/refs/main", HASH);
    shell("cd " REPOSITORY " && for f in config.json tokenizer.json model.safetensors; do "
          "cp " ABACUS "/$f blobs/b-$f && ln -s ../../blobs/b-$f snapshots/" HASH "/$f; done");
    setenv("HF_HUB_CACHE", "hub", 1);
    static const char *const verbs[] = {"model info lab/Abacus-1",
                                        "model info lab/Abacus-1@" HASH,
                                        "verify " REPOSITORY "/snapshots/" HASH,
                                        "tokenize --model lab/Abacus-1@main --text 1+1",
                                        "plan --model lab/Abacus-1 --budget 13 -o json",
                                        "generate --model lab/Abacus-1 --prompt 1+1= --max-new 2"};
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
        Run r = run(verbs[i]);
        if (r.code) {
            fail_msg("%s: %s", verbs[i], r.err);
        }
        run_free(&r);
    }
    run_write("rows.jsonl", "{\"question\": \"1+1\", \"answer\": \"2\"}\n");
    run_write("named.json",
              "{\"experiment\": \"x\", \"model\": \"lab/Abacus-1\", \"method\": \"sft\", "
              "\"steps\": 1, \"data\": {\"train\": \"rows.jsonl\"}}");
    Run r = run("config show named.json");
    if (r.code || !strstr(r.out, "\"model\": \"lab/Abacus-1\"")) {
        fail_msg("%s%s", r.out, r.err);
    }
    run_free(&r);
    unsetenv("HF_HUB_CACHE");
    setenv("HF_HOME", ".", 1); /* ./hub */
    r = run("model info lab/Abacus-1");
    assert_int_equal(r.code, 0);
    run_free(&r);
    shell("rm " REPOSITORY "/blobs/b-model.safetensors");
    refuse("model info lab/Abacus-1", 3,
           "model.safetensors: is a link to nothing; an unfinished download? `hf download "
           "lab/Abacus-1` goes on with it");
    refuse("generate --model lab/Other --prompt x", 3, "`hf download lab/Other` fetches it");
    unsetenv("HF_HOME");
}

/* A results.db of somebody else, before it is merged. */
static void a_results_file_is_checked_too(void **state)
{
    (void)state;
    run_write("rows.jsonl", "{\"question\": \"1+1\", \"answer\": \"2\"}\n");
    run_write("one.json", "{\"experiment\": \"x\", \"model\": \"abacus\", \"method\": \"sft\", "
                          "\"steps\": 1, \"data\": {\"train\": \"rows.jsonl\"}}");
    free(run_done("--db theirs.db sft one.json"));
    Run r = run("verify theirs.db");
    assert_int_equal(r.code, 0);
    assert_string_equal(r.out, "theirs.db: accepted\n");
    run_free(&r);
    free(run_done("verify theirs.db --kind results_db"));
    shell("head -c 20000 theirs.db > half.db; echo text > text.db; : > empty.db");
    refuse("verify half.db", 3, "\"half.db\": ");
    refuse("verify text.db", 3, "\"text.db\": not an SQLite database");
    refuse("verify empty.db", 3, "\"empty.db\": the file is empty");
    shell("cp theirs.db theirs.db-wal");
    refuse("verify theirs.db", 1, "has a -wal file beside it");
    shell("rm -rf *.db *.db-wal figures");
}

#define LOCK_START "{\n  \"version\": 1,\n  \"models\": {\n"

/* What every verb that opens a model does once the model's file is another one. */
static void a_drift_is_refused_by_every_verb(void **state)
{
    (void)state;
    shell("rm -rf copy && cp -r " ABACUS " copy && chmod -R u+w copy");
    Run r = run("verify abacus --lock");
    assert_int_equal(r.code, 0);
    assert_string_equal(r.out, ABACUS ": accepted, pinned in models.lock\n");
    run_free(&r);
    r = run("verify copy --lock -q");
    assert_int_equal(r.code, 0);
    run_free(&r);
    char *lock = run_slurp("models.lock");
    assert_memory_equal(lock, LOCK_START, sizeof LOCK_START - 1);
    assert_true(strstr(lock, "    \"abacus\": {\n      \"config.json\": \"") <
                strstr(lock, "    \"copy\": {\n      \"config.json\": \""));
    r = run("verify copy --lock -q"); /* once more: the same bytes */
    char *again = run_slurp("models.lock");
    assert_string_equal(again, lock);
    free(again);
    free(lock);
    run_free(&r);
    run_write("rows.jsonl", "{\"question\": \"1+1\", \"answer\": \"2\"}\n");
    run_write("train.json", "{\"experiment\": \"x\", \"model\": \"copy\", \"method\": \"sft\", "
                            "\"steps\": 1, \"data\": {\"train\": \"rows.jsonl\"}}");
    run_write("scan.json", "{\"experiment\": \"y\", \"model\": \"copy\", \"method\": \"scan\", "
                           "\"adapter\": {\"budget\": 2}, \"data\": {\"train\": \"rows.jsonl\"}, "
                           "\"scan\": {\"x\": \"-1:1:3\", \"y\": \"-1:1:3\", \"rows\": 1}}");
    run_write("texts", "1+1\n");
    static const char *const verbs[] = {
        "verify copy",
        "model info copy",
        "tokenize --model copy --text 1",
        "score --model ./copy --file texts",
        "plan --model copy --budget 13",
        "generate --model copy --prompt 1+1= --max-new 2",
        "factors --model copy --rank 1",
        "sft train.json",
        "scan scan.json",
    };
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
        char arguments[256];
        snprintf(arguments, sizeof arguments, "--locked %s", verbs[i]);
        r = run(arguments);
        if (r.code) {
            fail_msg("%s: %d %s", verbs[i], r.code, r.err);
        }
        run_free(&r);
    }
    shell("rm -f results.db* && echo ' ' >> copy/config.json"); /* the same config by its meaning */
    char hash[SHA256_HEX_SIZE], was[SHA256_HEX_SIZE], says[512];
    assert_int_equal(sha256_file(hash, "copy/config.json", NULL), STATUS_OK);
    assert_int_equal(sha256_file(was, ABACUS "/config.json", NULL), STATUS_OK);
    snprintf(says, sizeof says,
             "copy/config.json: has drifted: its SHA-256 is %s, models.lock has %s", hash, was);
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
        char arguments[256];
        snprintf(arguments, sizeof arguments, "%s --locked", verbs[i]);
        refuse(arguments, 3, says);
        assert_false(file_exists("results.db")); /* nothing half-written */
        r = run(verbs[i]);                       /* without --locked nothing is asked */
        assert_int_equal(r.code, 0);
        run_free(&r);
        shell("rm -rf results.db* figures");
    }
}

static void what_is_not_as_pinned_is_named(void **state)
{
    (void)state;
    shell("rm -rf copy && cp -r " ABACUS " copy && chmod -R u+w copy");
    run_write("copy/generation_config.json", "{\"eos_token_id\": 1}");
    refuse("--locked model info copy", 3,
           "copy/generation_config.json: is there, but not in models.lock");
    shell("rm copy/generation_config.json copy/tokenizer_config.json");
    refuse("--locked model info copy", 3,
           "copy/tokenizer_config.json: is in models.lock, and is not there");
    shell("cp -r " ABACUS " other");
    refuse(
        "--locked plan --model other --budget 13", 3,
        "model \"other\": is not in models.lock, which --locked asks for; `tinylora verify other "
        "--lock` adds it");
    refuse("verify train.json --kind config --lock", 2, "--lock: \"train.json\" is no model");
    refuse("--locked verify copy --lock", 2, "--lock and --locked exclude each other");
    static const char *const bad[][2] = {
        {"{}", "models.lock: \"version\" is not 1"},
        {"{\"version\": 1, \"models\": []}", "models.lock: \"models\" is missing or not an object"},
        {"{\"version\": 1, \"models\": {\"a\": {\"../x\": \"00\"}}}",
         "models.lock: \"a\": \"../x\": a name without folder and 64 hex digits are expected"},
        {"{\"version\": 1, \"models\": {\"a\": {}}}",
         "models.lock: \"a\": is not an object of files"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        run_write("models.lock", bad[i][0]);
        refuse("--locked model info abacus", 3, bad[i][1]);
        refuse("verify abacus --lock", 3, bad[i][1]); /* and it is not written over */
    }
    shell("rm models.lock");
    refuse("--locked model info abacus", 3,
           "models.lock: there is none; `tinylora verify MODEL --lock`");
}

/* In a database that is there. */
static void a_refusal_leaves_an_event(void **state)
{
    (void)state;
    shell("rm -rf copy results.db* && cp -r " ABACUS " copy && chmod -R u+w copy");
    Run r = run("sft train.json");
    assert_int_equal(r.code, 0);
    run_free(&r);
    run_write("copy/config.json", "<html>");
    refuse("sft train.json", 3, "copy/config.json: not JSON: is an HTML page");
    char hash[SHA256_HEX_SIZE], says[512];
    sha256_bytes(hash, "<html>", 6);
    snprintf(says, sizeof says,
             "sft: copy/config.json: not JSON: is an HTML page, not the file itself (a failed "
             "download?); SHA-256 of copy/config.json: %s",
             hash);
    r = run("query -o csv \"SELECT message FROM event WHERE kind = 'refused' AND run_id IS NULL\"");
    if (!strstr(r.out, says)) {
        fail_msg("%s%s", r.out, r.err);
    }
    run_free(&r);
    shell("rm results.db*");
    refuse("sft train.json", 3, "is an HTML page");
    assert_false(file_exists("results.db"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hashes_are_of_the_files),
        cmocka_unit_test(files_in_disguise_are_told),
        cmocka_unit_test(a_shard_outside_the_model_is_refused),
        cmocka_unit_test(a_model_is_found_in_the_cache_of_hugging_face),
        cmocka_unit_test(a_results_file_is_checked_too),
        cmocka_unit_test(a_drift_is_refused_by_every_verb),
        cmocka_unit_test(what_is_not_as_pinned_is_named),
        cmocka_unit_test(a_refusal_leaves_an_event),
    };
    return cmocka_run_group_tests(tests, run_setup, run_teardown);
}
