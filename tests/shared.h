/* Where the shared data of tests lies: $TINYLORA_SHARED, else ../shared beside the project. Tests
 * that need it skip, saying so, without. */
#pragma once
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* path: (4096) out. Inside a cmocka test only: skips it when the file or folder is absent. */
static inline void shared_path(char path[4096], const char *relative)
{
    const char *root = getenv("TINYLORA_SHARED");
    snprintf(path, 4096, "%s/%s", root && *root ? root : SOURCE_DIR "/../shared", relative);
    if (access(path, R_OK) != 0) {
        print_message("skipped: no %s (set TINYLORA_SHARED)\n", path);
        skip();
    }
}
