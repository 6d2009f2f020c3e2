/* A list with a fixed number of places. */
#include "core/model_files.h"

#include <string.h>

const char *model_file_beside(size_t i)
{
    static const char *const names[] = {"tokenizer_config.json", "chat_template.jinja"};
    return i < sizeof names / sizeof *names ? names[i] : NULL;
}

Status model_files_add(ModelFiles *list, const char *name, const char *sha256, Error *error)
{
    size_t n = strlen(name);
    if (n >= sizeof list->files[0].name || list->n == MODEL_FILES_MAX) {
        return error_set(error, STATUS_REFUSED,
                         list->n == MODEL_FILES_MAX ? "%.100s: is one of more than 1100 files"
                                                    : "%.100s...: its name has over 255 bytes",
                         name);
    }
    ModelFile *file = &list->files[list->n++];
    memcpy(file->name, name, n + 1);
    memcpy(file->sha256, sha256, SHA256_HEX_SIZE);
    return STATUS_OK;
}
