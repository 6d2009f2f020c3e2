/* Any bytes as the name of a model, after a NUL those of a reference (refs/main) in a cache of
 * downloads: refused, or a directory inside the cache. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/hub.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/memory.h"

#define REPOSITORY "models--o--n"
static const char hash[] = "0123456789abcdef0123456789abcdef01234567";

static void find(const char *name)
{
    char directory[FILE_PATH_MAX];
    Text hint = {0};
    Status status = hub_find(directory, name, memory_folder(), NULL);
    if (status == STATUS_OK) {
        size_t n = strlen(memory_folder());
        if (strncmp(directory, memory_folder(), n) != 0 || strstr(directory, "..") ||
            strcmp(directory + strlen(directory) - strlen(hash), hash) != 0) {
            abort();
        }
        hub_hint(&hint, directory);
        if (hint.n == 0) {
            abort();
        }
    } else if (status != STATUS_REFUSED) {
        abort();
    }
    text_release(&hint);
}

/* As paths, which come from the file system. */
static void ask(const char *directory, const char *target)
{
    char blobs[FILE_PATH_MAX];
    Text hint = {0};
    hub_hint(&hint, directory);
    if (hub_blobs(blobs, directory) != (hint.n > 0)) {
        abort();
    }
    hub_link_stays(directory, target);
    text_release(&hint);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static int reference = -1;
    char path[160];
    if (reference < 0) {
        const char *const folders[] = {"", "/refs", "/snapshots", "/snapshots/"};
        for (int i = 0; i < 4; i++) {
            snprintf(path, sizeof path, "%s/" REPOSITORY "%s%s", memory_folder(), folders[i],
                     i == 3 ? hash : "");
            if (mkdir(path, 0700) != 0) {
                abort();
            }
        }
        snprintf(path, sizeof path, "%s/" REPOSITORY "/refs/main", memory_folder());
        reference = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    }
    const uint8_t *rest;
    size_t n_rest, n_name = first_part(&rest, &n_rest, bytes, n);
    char *name = strndup((const char *)bytes, n_name),
         *target = strndup((const char *)rest, n_rest);
    if (!name || !target || ftruncate(reference, 0) != 0 ||
        pwrite(reference, rest, n_rest, 0) != (ssize_t)n_rest) {
        abort();
    }
    if (hub_is_name(name)) {
        find(name);
    }
    find("o/n");
    ask(name, target);
    free(name);
    free(target);
    return 0;
}
