/* Runs a fuzz target over the files of the folders given: whole, cut at 64 places, and with 64
 * bytes changed. A folder that is absent is skipped, saying so. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "tests/fuzz/fuzz.h"

static void replay(const char *path)
{
    char *bytes;
    size_t n;
    if (file_read(&bytes, &n, path, 1 << 17, NULL) != STATUS_OK) {
        return;
    }
    LLVMFuzzerTestOneInput((const uint8_t *)bytes, n);
    for (size_t i = 0; i < 64 && n > 0; i++) {
        size_t place = (i * 2654435761u + n / 64 * i) % n;
        char *cut = malloc(place + 1); /* its own size, so that a sanitizer sees the end */
        if (!cut) {
            abort();
        }
        memcpy(cut, bytes, place);
        LLVMFuzzerTestOneInput((const uint8_t *)cut, place);
        free(cut);
        char kept = bytes[place];
        bytes[place] = "\"{}[],:0-1\\\n\377"[i % 13];
        LLVMFuzzerTestOneInput((const uint8_t *)bytes, n);
        bytes[place] = kept;
    }
    free(bytes);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        DIR *folder = opendir(argv[i]);
        if (!folder) {
            printf("skipped: no %s\n", argv[i]);
            continue;
        }
        for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
            char path[FILE_PATH_MAX];
            if (entry->d_name[0] != '.' &&
                path_join(path, argv[i], entry->d_name, NULL) == STATUS_OK) {
                replay(path);
            }
        }
        closedir(folder);
    }
    return 0;
}
