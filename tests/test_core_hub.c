/* core/hub: what of Hugging Face's cache is found by name, and what is said where it is not; links
 * that leave a model directory. */
#include "core/hub.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/model_config.h"
#include "core/safetensors.h"

#define HASH "0123456789abcdef0123456789abcdef01234567"
#define REPOSITORY "hub/models--Qwen--Qwen2.5-0.5B"

static char folder[] = "/tmp/tinylora-hub-XXXXXX";
static Error error;

static void put(const char *path, const char *text)
{
    char parent[FILE_PATH_MAX];
    snprintf(parent, sizeof parent, "%s", path);
    *strrchr(parent, '/') = 0;
    assert_int_equal(directory_make(parent, NULL), STATUS_OK);
    assert_int_equal(file_write(path, text, strlen(text), NULL), STATUS_OK);
}

/* A repository as huggingface_hub leaves it, of one shard and its index. */
static int make_cache(void **state)
{
    (void)state;
    if (!mkdtemp(folder) || chdir(folder)) {
        return 1;
    }
    const float values[2] = {0.31F, -1.27F};
    const Tensor tensor = {.name = "a",
                           .type = TENSOR_F32,
                           .type_name = "F32",
                           .n_dims = 1,
                           .dims = {2},
                           .data = values,
                           .n_bytes = 8};
    put(REPOSITORY "/refs/main", HASH);
    put(REPOSITORY "/refs/refs/pr/1", HASH "\n");
    put(REPOSITORY "/refs/bad", "../../../etc");
    put(REPOSITORY "/refs/gone", "fedcba9876543210fedcba9876543210fedcba98");
    put(REPOSITORY "/blobs/index", "{\"weight_map\": {\"a\": \"one.safetensors\"}}");
    put("outside/keep", "");
    return directory_make(REPOSITORY "/snapshots/" HASH, NULL) ||
           safetensors_write(REPOSITORY "/blobs/one", &tensor, 1, NULL, 0, NULL) ||
           safetensors_write("outside/one", &tensor, 1, NULL, 0, NULL) ||
           symlink("../../blobs/index",
                   REPOSITORY "/snapshots/" HASH "/model.safetensors.index.json") ||
           symlink("../../blobs/one", REPOSITORY "/snapshots/" HASH "/one.safetensors");
}

static int remove_cache(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return chdir("/") || system(command);
}

static void names_are_told_from_paths(void **state)
{
    (void)state;
    static const char *const yes[] = {"Qwen/Qwen2.5-0.5B", "a/b", "a/b@main", "a/b@" HASH,
                                      "a/b@refs/pr/1"};
    static const char *const no[] = {"",       "abacus", "./a",       "../a", "/a/b",
                                     "a/b/c",  "a/",     "a/.b",      "a/b@", "a b/c",
                                     "a/b@/x", "a/b@..", "a/b@x/../y"};
    for (size_t i = 0; i < sizeof yes / sizeof *yes; i++) {
        if (!hub_is_name(yes[i])) {
            fail_msg("%s", yes[i]);
        }
    }
    for (size_t i = 0; i < sizeof no / sizeof *no; i++) {
        if (hub_is_name(no[i])) {
            fail_msg("%s", no[i]);
        }
    }
}

static void a_name_leads_to_its_snapshot(void **state)
{
    (void)state;
    static const char *const names[] = {"Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-0.5B@main",
                                        "Qwen/Qwen2.5-0.5B@" HASH, "Qwen/Qwen2.5-0.5B@refs/pr/1"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char directory[FILE_PATH_MAX];
        if (hub_find(directory, names[i], "/nowhere:hub", &error) != STATUS_OK) {
            fail_msg("%s: %s", names[i], error.message);
        }
        assert_string_equal(directory, REPOSITORY "/snapshots/" HASH);
    }
}

static void what_is_not_there_is_said_with_the_command_that_fetches_it(void **state)
{
    (void)state;
    static const struct {
        const char *name, *message;
    } cases[] = {
        {"Qwen/Other", "model \"Qwen/Other\": there is no such directory, and no "
                       "models--Qwen--Other in \"/nowhere:hub\"; `hf download Qwen/Other` fetches "
                       "it (with older tools: huggingface-cli download)"},
        {"Qwen/Other@v2", "model \"Qwen/Other@v2\": there is no such directory, and no "
                          "models--Qwen--Other in \"/nowhere:hub\"; `hf download Qwen/Other "
                          "--revision v2` fetches it (with older tools: huggingface-cli download)"},
        {"Qwen/Qwen2.5-0.5B@v2",
         "model \"Qwen/Qwen2.5-0.5B@v2\": hub/models--Qwen--Qwen2.5-0.5B: has no revision \"v2\"; "
         "`hf download Qwen/Qwen2.5-0.5B --revision v2` fetches it; there is "
         "Qwen/Qwen2.5-0.5B@" HASH},
        {"Qwen/Qwen2.5-0.5B@bad",
         "model \"Qwen/Qwen2.5-0.5B@bad\": hub/models--Qwen--Qwen2.5-0.5B/refs/bad: is no commit "
         "hash of 40 hex digits"},
        {"Qwen/Qwen2.5-0.5B@gone",
         "model \"Qwen/Qwen2.5-0.5B@gone\": hub/models--Qwen--Qwen2.5-0.5B/snapshots/"
         "fedcba9876543210fedcba9876543210fedcba98: is missing, an unfinished download; `hf "
         "download Qwen/Qwen2.5-0.5B --revision gone` goes on with it"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char directory[FILE_PATH_MAX];
        assert_int_equal(hub_find(directory, cases[i].name, "/nowhere:hub", &error),
                         STATUS_REFUSED);
        assert_string_equal(error.message, cases[i].message);
    }
}

#define SNAPSHOT REPOSITORY "/snapshots/" HASH

/* What safetensors_open says of the snapshot's index with `target` in the shard's place. */
static Status open_linked(const char *target)
{
    SafeTensors *file = NULL;
    unlink(SNAPSHOT "/one.safetensors");
    assert_int_equal(symlink(target, SNAPSHOT "/one.safetensors"), 0);
    Status status = safetensors_open(&file, SNAPSHOT "/model.safetensors.index.json", &error);
    safetensors_close(file);
    return status;
}

static void a_shard_may_be_a_blob_and_nothing_outside(void **state)
{
    (void)state;
    char says[1024];
    assert_int_equal(open_linked("../../../../outside/one"), STATUS_REFUSED);
    snprintf(says, sizeof says,
             SNAPSHOT "/model.safetensors.index.json: " SNAPSHOT
                      "/one.safetensors: is a link that leaves the model directory, to "
                      "%s/outside/one",
             folder);
    assert_string_equal(error.message, says);
    snprintf(says, sizeof says, "%s/outside/one", folder); /* absolute */
    assert_int_equal(open_linked(says), STATUS_REFUSED);
    assert_int_equal(symlink("../../../outside", REPOSITORY "/blobs/out"), 0);
    assert_int_equal(open_linked("../../blobs/out/one"), STATUS_REFUSED); /* by two links */
    assert_int_equal(open_linked("../../blobs/one"), STATUS_OK);
    /* The same link outside of a cache leaves its directory. */
    assert_int_equal(rename(REPOSITORY, "hub/other"), 0);
    SafeTensors *file = NULL;
    assert_int_equal(safetensors_open(&file,
                                      "hub/other/snapshots/" HASH "/model.safetensors.index.json",
                                      &error),
                     STATUS_REFUSED);
    assert_non_null(strstr(error.message, "leaves the model directory"));
    assert_int_equal(rename("hub/other", REPOSITORY), 0);
}

static void half_a_snapshot_says_what_is_missing(void **state)
{
    (void)state;
    assert_int_equal(open_linked("../../blobs/absent"), STATUS_REFUSED);
    assert_string_equal(error.message,
                        SNAPSHOT "/model.safetensors.index.json: " SNAPSHOT
                                 "/one.safetensors: is a link to nothing; an unfinished download? "
                                 "`hf download Qwen/Qwen2.5-0.5B` goes on with it");
    assert_int_equal(rename(SNAPSHOT "/model.safetensors.index.json", "index"), 0);
    char path[FILE_PATH_MAX];
    assert_int_equal(model_weights_path(path, SNAPSHOT, &error), STATUS_REFUSED);
    assert_string_equal(error.message,
                        SNAPSHOT ": has no model.safetensors, but \"one.safetensors\", of another "
                                 "name than model.safetensors; an unfinished download? `hf "
                                 "download Qwen/Qwen2.5-0.5B` goes on with it");
    assert_int_equal(rename("index", SNAPSHOT "/model.safetensors.index.json"), 0);
}

static void a_directory_without_weights_says_what_it_has(void **state)
{
    (void)state;
    static const char *const files[][2] = {
        {"pytorch_model.bin", ", but \"pytorch_model.bin\", a PyTorch pickle, which is never "
                              "opened; it can be converted to safetensors"},
        {"x.gguf", ", but \"x.gguf\", a GGUF file: name the file itself"},
        {"adapter_model.safetensors",
         ", but \"adapter_model.safetensors\", an adapter; its base model is wanted"},
        {"README", ""},
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[64], says[256];
        snprintf(path, sizeof path, "bare%zu/%s", i, files[i][0]);
        put(path, "");
        *strrchr(path, '/') = 0;
        snprintf(says, sizeof says, "%s: has no model.safetensors%s", path, files[i][1]);
        char weights[FILE_PATH_MAX];
        assert_int_equal(model_weights_path(weights, path, &error), STATUS_REFUSED);
        assert_string_equal(error.message, says);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_told_from_paths),
        cmocka_unit_test(a_name_leads_to_its_snapshot),
        cmocka_unit_test(what_is_not_there_is_said_with_the_command_that_fetches_it),
        cmocka_unit_test(a_shard_may_be_a_blob_and_nothing_outside),
        cmocka_unit_test(half_a_snapshot_says_what_is_missing),
        cmocka_unit_test(a_directory_without_weights_says_what_it_has),
    };
    return cmocka_run_group_tests(tests, make_cache, remove_cache);
}
