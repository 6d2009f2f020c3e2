/* core/verify: the corpus of malformed and valid files, each with its verdict, and the kinds. */
#include "core/verify.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/file.h"
#include "core/json.h"
#include "core/model.h"
#include "tests/shared.h"

static const char *const FOLDER = "test_core_verify.tmp";

static void remove_folder(void)
{
    DIR *folder = opendir(FOLDER);
    if (!folder) {
        return;
    }
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        unlinkat(dirfd(folder), entry->d_name, 0);
    }
    closedir(folder);
    rmdir(FOLDER);
}

/* A link in FOLDER to the absolute path of target. */
static void add_link(const char *target, const char *name)
{
    char absolute[FILE_PATH_MAX], path[FILE_PATH_MAX];
    assert_non_null(realpath(target, absolute));
    assert_int_equal(path_join(path, FOLDER, name, NULL), STATUS_OK);
    unlink(path);
    assert_int_equal(symlink(absolute, path), 0);
}

/* FOLDER becomes the control model with the bad file in its place. */
static void pair(const char *control, const char *file, VerifyKind kind)
{
    remove_folder();
    assert_int_equal(mkdir(FOLDER, 0777), 0);
    DIR *folder = opendir(control);
    assert_non_null(folder);
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        char path[FILE_PATH_MAX];
        if (entry->d_name[0] != '.') {
            assert_int_equal(path_join(path, control, entry->d_name, NULL), STATUS_OK);
            add_link(path, entry->d_name);
        }
    }
    closedir(folder);
    add_link(file, kind == VERIFY_SAFETENSORS ? "model.safetensors"
                   : kind == VERIFY_TOKENIZER ? "tokenizer.json"
                                              : "config.json");
}

/* Right: the expected verdict, in words that name the file. */
static bool is_right(const Json *item, const char *root)
{
    const char *file = json_string(json_get(item, "file"), NULL);
    const char *control = json_string(json_get(item, "pair_with"), NULL);
    const char *expected = json_string(json_get(item, "expected"), NULL);
    VerifyKind kind;
    char path[FILE_PATH_MAX], control_path[FILE_PATH_MAX];
    assert_true(verify_kind_find(&kind, json_string(json_get(item, "kind"), NULL)));
    assert_int_equal(path_join(path, root, file, NULL), STATUS_OK);
    if (control) {
        assert_int_equal(path_join(control_path, root, control, NULL), STATUS_OK);
        pair(control_path, path, kind);
        strcpy(path, FOLDER);
    }
    Error error = {0};
    Status status = verify_path(path, kind, NULL, &error);
    bool right = strcmp(expected, "accept") == 0
                     ? status == STATUS_OK
                     : status == STATUS_REFUSED && strstr(error.message, path);
    if (!right) {
        print_error("%s: expected %s, got %d %s\n", file, expected, status, error.message);
    }
    return right;
}

static void the_corpus_gets_its_verdicts(void **state)
{
    (void)state;
    char root[4096], manifest[FILE_PATH_MAX];
    shared_path(root, "badfiles");
    assert_int_equal(path_join(manifest, root, "manifest.json", NULL), STATUS_OK);
    JsonDocument *document = NULL;
    assert_int_equal(json_read(&document, manifest, 1 << 24, NULL), STATUS_OK);
    const Json *cases = json_get(json_root(document), "cases");
    int n_run = 0, n_wrong = 0;
    for (size_t i = 0; i < json_size(cases); i++) {
        const Json *item = json_at(cases, i);
        VerifyKind kind;
        if (verify_kind_find(&kind, json_string(json_get(item, "kind"), NULL)) &&
            kind != VERIFY_DATASET) {
            n_run++;
            n_wrong += !is_right(item, root);
        }
    }
    json_free(document);
    remove_folder();
    assert_true(n_run >= 290);
    assert_int_equal(n_wrong, 0);
}

static void kinds_are_found_and_guessed(void **state)
{
    (void)state;
    VerifyKind kind;
    assert_true(verify_kind_find(&kind, "modeldir") && kind == VERIFY_MODEL);
    assert_true(verify_kind_find(&kind, "tokenizer") && kind == VERIFY_TOKENIZER);
    assert_false(verify_kind_find(&kind, "pickle"));
    static const struct {
        const char *path;
        VerifyKind kind;
    } cases[] = {
        {".", VERIFY_MODEL},
        {"x/a.safetensors", VERIFY_SAFETENSORS},
        {"x/tokenizer.json", VERIFY_TOKENIZER},
        {"tokenizer/config.json", VERIFY_CONFIG},
        {"a.jsonl", VERIFY_DATASET},
        {"x/model.gguf", VERIFY_GGUF},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_true(verify_kind_guess(&kind, cases[i].path));
        assert_int_equal(kind, cases[i].kind);
    }
    assert_false(verify_kind_guess(&kind, "x/weights.bin"));
}

static void what_cannot_be_checked_is_said(void **state)
{
    (void)state;
    Error error = {0};
    assert_int_equal(verify_path("/nonexistent", VERIFY_MODEL, NULL, &error), STATUS_FAILED);
    assert_string_equal(error.message, "/nonexistent: there is no such directory");
    assert_int_equal(verify_path(SOURCE_DIR "/CMakeLists.txt", VERIFY_MODEL, NULL, &error),
                     STATUS_REFUSED);
    assert_string_equal(error.message,
                        SOURCE_DIR "/CMakeLists.txt: is a file, a model directory was expected");
    assert_int_equal(verify_path("x.jsonl", VERIFY_DATASET, NULL, &error), STATUS_USAGE);
    assert_int_equal(verify_path(SOURCE_DIR "/tests", VERIFY_MODEL, NULL, &error), STATUS_REFUSED);
    assert_string_equal(error.message, SOURCE_DIR "/tests: has no config.json, so it is no model");
}

static void ids_beyond_the_vocabulary_are_refused(void **state)
{
    (void)state;
    char model[4096];
    shared_path(model, "data/models/stories260k");
    assert_int_equal(verify_path(model, VERIFY_MODEL, NULL, NULL), STATUS_OK);
    char other[4096], tokenizer[FILE_PATH_MAX];
    shared_path(other, "data/tokenizers/llama2/tokenizer.json");
    assert_int_equal(path_join(tokenizer, FOLDER, "tokenizer.json", NULL), STATUS_OK);
    pair(model, other, VERIFY_TOKENIZER);
    Error error = {0};
    assert_int_equal(verify_path(FOLDER, VERIFY_MODEL, NULL, &error), STATUS_REFUSED);
    assert_string_equal(error.message, "test_core_verify.tmp/tokenizer.json: has the id 31999, the "
                                       "config's \"vocab_size\" is 512");
    remove_folder();
}

static void a_sharded_model_opens_like_any_other(void **state)
{
    (void)state;
    char directory[4096];
    shared_path(directory, "badfiles/controls/qwen2-tiny-f32-sharded3");
    Model *model = NULL;
    Error error = {0};
    if (model_open(&model, directory, 1, &error) != STATUS_OK) {
        fail_msg("%s", error.message);
    }
    TensorSpec *specs;
    size_t n_specs = model_config_tensors(&specs, &model->config), n = 0;
    for (size_t i = 0; i < n_specs; i++) {
        n += specs[i].dims[0] * (specs[i].n_dims == 2 ? specs[i].dims[1] : 1);
    }
    free(specs);
    assert_int_equal(model->n_parameters, n);
    assert_non_null(model->tokenizer);
    model_free(model);
    shared_path(directory, "badfiles/safetensors/st_143_reject_nan_weight.safetensors");
    char control[4096];
    shared_path(control, "badfiles/controls/llama-micro-f16");
    pair(control, directory, VERIFY_SAFETENSORS);
    model = NULL;
    Status status = model_open(&model, FOLDER, 1, &error);
    status = status ? status : model_pack(model, &error);
    assert_int_equal(status, STATUS_REFUSED);
    assert_non_null(strstr(error.message, "is infinite or not a number"));
    model_free(model);
    remove_folder();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_corpus_gets_its_verdicts),
        cmocka_unit_test(kinds_are_found_and_guessed),
        cmocka_unit_test(what_cannot_be_checked_is_said),
        cmocka_unit_test(a_sharded_model_opens_like_any_other),
        cmocka_unit_test(ids_beyond_the_vocabulary_are_refused),
    };
    if (chdir(BUILD_DIR) != 0) { /* temporary files go there */
        return 1;
    }
    remove_folder();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
