/* models.lock: what the files of models must be, by SHA-256. JSON, sorted, for a version control
 * system:
 *   {"version": 1, "models": {"abacus": {"config.json": "5f3c...", "model.safetensors": "..."}}}
 * A model is named as it is typed where that is no path, else by its path from the lock's folder.
 * Opening goes: the pinned files are hashed (a drift is refused before a byte is parsed), then the
 * model is read, then the hashes of the bytes that were parsed are held against the pins. */
#pragma once
#include "core/model_files.h"
#include "experiments/settings.h"

#define MODEL_LOCK "models.lock" /* in the working directory */

typedef struct ModelLock ModelLock;

/* models: as of model_find. Errors: STATUS_REFUSED (no such file, or not one), STATUS_FAILED. */
Status model_lock_open(ModelLock **lock, const char *path, const char *models, Error *error);
void model_lock_free(ModelLock *lock);

/* Of the model in a directory: every pinned file is there with its hash, and none that would be
 * read is there unpinned. Done once for a directory. lock may be NULL: nothing is checked. Errors:
 * STATUS_REFUSED naming the file and both hashes. */
Status model_lock_check(ModelLock *lock, const char *directory, Error *error);
/* After that: a file that was parsed had the pinned hash. name: without folder. */
Status model_lock_confirm(const ModelLock *lock, const char *directory, const char *name,
                          const char *sha256, Error *error);

/* Pin the files of a model, in the place of what was pinned for it; the rest stays. name: as typed,
 * directory: where it was found. Atomic. Errors: STATUS_REFUSED for a file of that name that is no
 * models.lock, STATUS_FAILED. */
Status model_lock_write(const char *path, const char *name, const char *directory,
                        const ModelFiles *files, Error *error);
