/* core/file: a file or folder appears whole or not at all, also when the disk is full. */
#include "core/file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/model_config.h"

static const char *const PATH = "test_core_file.tmp";
static const char *const FOLDER = "test_core_file_folder.tmp";

/* How many entries of the current folder start with this. */
static int count(const char *start)
{
    DIR *folder = opendir(".");
    int n = 0;
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        n += strncmp(entry->d_name, start, strlen(start)) == 0;
    }
    closedir(folder);
    return n;
}

/* No file may grow beyond n bytes: writes then fail as on a full disk. */
static void limit_files(rlim_t n)
{
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = n;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static void a_failed_write_leaves_the_old_file_and_nothing_else(void **state)
{
    (void)state;
    char *large = calloc(1 << 16, 1), *bytes;
    size_t n;
    Error error = {0};
    assert_int_equal(file_write(PATH, "old", 3, &error), STATUS_OK);
    limit_files(1000);
    assert_int_equal(file_write(PATH, large, 1 << 16, &error), STATUS_FAILED);
    limit_files(RLIM_INFINITY);
    assert_string_equal(error.message, "test_core_file.tmp: cannot be written: File too large");
    assert_int_equal(count(PATH), 1);
    assert_int_equal(file_read(&bytes, &n, PATH, 100, &error), STATUS_OK);
    assert_string_equal(bytes, "old");
    free(bytes);
    free(large);
    unlink(PATH);
}

static void a_file_is_not_there_before_its_commit(void **state)
{
    (void)state;
    FileWriter writer;
    Error error = {0};
    assert_int_equal(file_writer_open(&writer, PATH, &error), STATUS_OK);
    assert_int_equal(file_writer_append(&writer, "abc", 3, &error), STATUS_OK);
    assert_false(file_exists(PATH));
    assert_int_equal(count(PATH), 1);
    /* A second writer of the same path does not meet the first. */
    assert_int_equal(file_write(PATH, "other", 5, &error), STATUS_OK);
    file_writer_cancel(&writer);
    assert_int_equal(count(PATH), 1);
    unlink(PATH);
}

static void paths_that_cannot_be_written_are_named(void **state)
{
    (void)state;
    Error error = {0};
    char path[FILE_PATH_MAX + 100];
    memset(path, 'x', sizeof path - 1);
    path[sizeof path - 1] = 0;
    assert_int_equal(file_write(path, "", 0, &error), STATUS_FAILED);
    assert_non_null(strstr(error.message, "is not a path that can be written"));
    assert_int_equal(file_write("", "", 0, &error), STATUS_FAILED);
    char joined[FILE_PATH_MAX];
    path[FILE_PATH_MAX - 1] = 0;
    assert_int_equal(path_join(joined, path, "y", &error), STATUS_FAILED);
    assert_int_equal(path_join(joined, "a/", "b", &error), STATUS_OK);
    assert_string_equal(joined, "a/b");
    assert_int_equal(mkdir(FOLDER, 0777), 0);
    assert_int_equal(file_write(FOLDER, "x", 1, &error), STATUS_FAILED);
    assert_string_equal(error.message,
                        "test_core_file_folder.tmp: cannot be put in place: Is a directory");
    assert_int_equal(count(FOLDER), 1);
    rmdir(FOLDER);
}

static void a_folder_that_cannot_be_finished_does_not_appear(void **state)
{
    (void)state;
    const char *text =
        "{\"model_type\": \"llama\", \"hidden_size\": 32, \"intermediate_size\": 48, "
        "\"num_hidden_layers\": 2, \"num_attention_heads\": 4, \"vocab_size\": 50, "
        "\"max_position_embeddings\": 128}";
    Error error = {0};
    assert_int_equal(file_write(PATH, text, strlen(text), &error), STATUS_OK);
    limit_files(5000);
    assert_int_equal(model_random_write(FOLDER, PATH, TENSOR_F32, 1, &error), STATUS_FAILED);
    limit_files(RLIM_INFINITY);
    assert_non_null(strstr(error.message, "model.safetensors: cannot be written: File too large"));
    assert_int_equal(count(FOLDER), 0);
    assert_int_equal(model_random_write("test_core_file_folder.tmp/", PATH, TENSOR_F32, 1, &error),
                     STATUS_OK);
    assert_int_equal(count(FOLDER), 1);
    assert_true(directory_exists(FOLDER));
    unlink("test_core_file_folder.tmp/config.json");
    unlink("test_core_file_folder.tmp/model.safetensors");
    assert_int_equal(rmdir(FOLDER), 0);
    unlink(PATH);
}

static void a_folder_is_made_with_all_that_leads_to_it(void **state)
{
    (void)state;
    Error error = {0};
    assert_int_equal(directory_make("test_core_file_folder.tmp/a//b/", &error), STATUS_OK);
    assert_int_equal(directory_make("test_core_file_folder.tmp/a/b", &error), STATUS_OK);
    assert_true(directory_exists("test_core_file_folder.tmp/a/b"));
    assert_int_equal(file_write("test_core_file_folder.tmp/c", "x", 1, &error), STATUS_OK);
    assert_int_equal(directory_make("test_core_file_folder.tmp/c", &error), STATUS_FAILED);
    assert_string_equal(error.message,
                        "test_core_file_folder.tmp/c: cannot be created: File exists");
    assert_int_equal(directory_make("test_core_file_folder.tmp/c/d", &error), STATUS_FAILED);
    assert_string_equal(error.message,
                        "test_core_file_folder.tmp/c/d: cannot be created: Not a directory");
    unlink("test_core_file_folder.tmp/c");
    rmdir("test_core_file_folder.tmp/a/b");
    rmdir("test_core_file_folder.tmp/a");
    assert_int_equal(rmdir(FOLDER), 0);
}

static void files_in_disguise_are_recognised(void **state)
{
    (void)state;
    assert_string_equal(file_disguise("GGUF\3\0", 6), "is a GGUF file");
    assert_string_equal(file_disguise("<HTML>", 6),
                        "is an HTML page, not the file itself (a failed download?)");
    assert_null(file_disguise("<htm", 4));
    assert_null(file_disguise("", 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failed_write_leaves_the_old_file_and_nothing_else),
        cmocka_unit_test(a_file_is_not_there_before_its_commit),
        cmocka_unit_test(paths_that_cannot_be_written_are_named),
        cmocka_unit_test(a_folder_that_cannot_be_finished_does_not_appear),
        cmocka_unit_test(a_folder_is_made_with_all_that_leads_to_it),
        cmocka_unit_test(files_in_disguise_are_recognised),
    };
    signal(SIGXFSZ, SIG_IGN);
    if (chdir(BUILD_DIR) != 0) { /* temporary files go there */
        return 1;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
