/* Any bytes as models.lock: refused, or pins that hold for the files of a model or do not; a model
 * can be pinned in it, and then holds. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "experiments/model_lock.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/memory.h"

static char folder[80]; /* of a model that is called m */
static char hash[SHA256_HEX_SIZE];

static void make_model(void)
{
    char path[96];
    snprintf(folder, sizeof folder, "%s/m", memory_folder());
    snprintf(path, sizeof path, "%s/config.json", folder);
    FILE *file = mkdir(folder, 0700) == 0 ? fopen(path, "wb") : NULL;
    if (!file || fputs("{}", file) < 0 || fclose(file) != 0) {
        abort();
    }
    sha256_bytes(hash, "{}", 2);
}

static Status check(const char *path)
{
    ModelLock *lock;
    Status status = model_lock_open(&lock, path, "", NULL);
    if (status != STATUS_OK) {
        if (status != STATUS_REFUSED) {
            abort();
        }
        return status;
    }
    Status held = model_lock_check(lock, folder, NULL);
    if (held == STATUS_OK &&
        (model_lock_confirm(lock, folder, "config.json", hash, NULL) != STATUS_OK ||
         model_lock_confirm(lock, folder, "config.json", "0", NULL) != STATUS_REFUSED)) {
        abort();
    }
    model_lock_free(lock);
    return STATUS_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static ModelFiles files;
    char path[96];
    if (!*folder) {
        make_model();
        if (model_files_add(&files, "config.json", hash, NULL) != STATUS_OK) {
            abort();
        }
    }
    snprintf(path, sizeof path, "%s/" MODEL_LOCK, memory_folder());
    FILE *file = fopen(path, "wb"); /* model_lock_write puts another in its place */
    if (!file || fwrite(bytes, 1, n, file) != n || fclose(file) != 0) {
        abort();
    }
    if (check(path) == STATUS_OK) {
        if (model_lock_write(path, "m", folder, &files, NULL) != STATUS_OK ||
            check(path) != STATUS_OK) {
            abort();
        }
    }
    return 0;
}
