/* The library test: includes follow DESIGN's arrows, and each external library is included by one
 * .c file. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

/* Which folders may be included from which. */
static const struct {
    const char *folder;
    const char *allowed[9];
} arrows[] = {
    {"core", {"core"}},
    {"adapters", {"adapters", "core"}},
    {"results", {"results", "core"}},
    {"rl", {"rl", "adapters", "results", "core"}},
    {"analysis", {"analysis", "rl", "adapters", "results", "core"}},
    {"experiments", {"experiments", "analysis", "rl", "adapters", "results", "core"}},
    {"notebooks-export", {"notebooks-export", "analysis", "results", "rl", "adapters", "core"}},
    {"cli",
     {"cli", "notebooks-export", "experiments", "analysis", "rl", "adapters", "results", "core"}},
};
enum { N_FOLDERS = sizeof arrows / sizeof arrows[0] };

/* Headers of external libraries: each may be included by one .c file. */
static const char *const externals[] = {
    "cblas.h", "lapacke.h", "gsl/",       "sqlite3.h", "cjson/", "utf8proc.h",
    "nettle/", "openssl/",  "Random123/", "mpi.h",     "hdf5.h",
};
enum { N_EXTERNALS = sizeof externals / sizeof externals[0] };

typedef struct {
    char owner[600]; /* the .c file that includes the library */
    int n_owners;
} External;

static int n_includes, n_wrong;
static External found[N_EXTERNALS];

static void check_project_include(const char *folder, const char *path, int line, const char *name)
{
    size_t n = strcspn(name, "/");
    for (int i = 0; i < N_FOLDERS; i++) {
        if (strcmp(arrows[i].folder, folder) != 0) {
            continue;
        }
        for (int j = 0; j < 8 && arrows[i].allowed[j]; j++) {
            if (strlen(arrows[i].allowed[j]) == n && strncmp(arrows[i].allowed[j], name, n) == 0) {
                return;
            }
        }
    }
    print_error("%s:%d: %s/ must not include \"%s\"\n", path, line, folder, name);
    n_wrong++;
}

static void check_external(const char *path, const char *name)
{
    for (int i = 0; i < N_EXTERNALS; i++) {
        if (strncmp(name, externals[i], strlen(externals[i])) == 0 &&
            strcmp(found[i].owner, path) != 0) {
            if (found[i].n_owners++) {
                print_error("<%s> is included by %s and by %s\n", name, found[i].owner, path);
                n_wrong++;
            }
            snprintf(found[i].owner, sizeof found[i].owner, "%.599s", path);
        }
    }
}

/* A generated part included inside an array or a function, such as "schema_sql.inc", is no header.
 */
static int is_header(const char *name)
{
    size_t n = strlen(name);
    return n > 2 && strcmp(name + n - 2, ".h") == 0;
}

static void check_file(const char *folder, const char *name)
{
    char path[600], line[1024];
    snprintf(path, sizeof path, SOURCE_DIR "/%s/%s", folder, name);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    for (int number = 1; fgets(line, sizeof line, file); number++) {
        char included[512];
        if (sscanf(line, " # include \"%511[^\"]\"", included) == 1) {
            n_includes++;
            if (is_header(included)) {
                check_project_include(folder, path, number, included);
            }
        } else if (sscanf(line, " # include <%511[^>]>", included) == 1) {
            n_includes++;
            check_external(path, included);
        }
    }
    fclose(file);
}

static void each_folder(void (*check)(const char *folder, const char *name))
{
    for (int i = 0; i < N_FOLDERS; i++) {
        char path[512];
        snprintf(path, sizeof path, SOURCE_DIR "/%s", arrows[i].folder);
        DIR *directory = opendir(path);
        for (struct dirent *entry; directory && (entry = readdir(directory));) {
            size_t n = strlen(entry->d_name);
            if (n > 2 && (strcmp(entry->d_name + n - 2, ".c") == 0 ||
                          strcmp(entry->d_name + n - 2, ".h") == 0)) {
                check(arrows[i].folder, entry->d_name);
            }
        }
        if (directory) {
            closedir(directory);
        }
    }
}

static void includes_follow_the_arrows_and_each_library_is_included_by_one_file(void **state)
{
    (void)state;
    each_folder(check_file);
    assert_true(n_includes > 100); /* the files were found */
    assert_int_equal(n_wrong, 0);
}

/* Below the experiments nothing prints, exits or reads environment and clock. */
static int n_worldly;
static void check_worldly(const char *folder, const char *name)
{
    static const char *const words[] = {"printf(", "fputs(",         "puts(",     "exit(",
                                        "getenv(", "clock_gettime(", "time(NULL", "gettimeofday("};
    char path[600], line[1024];
    if (strcmp(folder, "cli") == 0) {
        return;
    }
    snprintf(path, sizeof path, SOURCE_DIR "/%s/%s", folder, name);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    for (int number = 1; fgets(line, sizeof line, file); number++) {
        for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
            const char *at = strstr(line, words[i]);
            int inside_a_word =
                at && at > line && (at[-1] == '_' || (at[-1] >= 'a' && at[-1] <= 'z'));
            int in_sql = at && strncmp(at, "printf('", 8) == 0; /* SQL's own, within a string */
            if (at && !inside_a_word && !in_sql) {
                print_error("%s:%d: %s\n", path, number, words[i]);
                n_worldly++;
            }
        }
    }
    fclose(file);
}

static void nothing_below_cli_prints_exits_or_reads_environment_and_clock(void **state)
{
    (void)state;
    each_folder(check_worldly);
    assert_int_equal(n_worldly, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(includes_follow_the_arrows_and_each_library_is_included_by_one_file),
        cmocka_unit_test(nothing_below_cli_prints_exits_or_reads_environment_and_clock),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
