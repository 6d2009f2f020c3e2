/* The path is taken from the sentence: it names the file it is about, in one of its parts. */
#include "cli/audit.h"

#include <string.h>
#include <sys/stat.h>

#include "core/file.h"
#include "core/sha256.h"

enum { WAIT_MS = 1000, MAX_HASHED_BYTES = 1 << 26 };

/* The last of "a: b "c": d" that is a file. */
static bool find_path(char path[FILE_PATH_MAX], const char *sentence)
{
    bool found = false;
    for (const char *at = sentence; *at;) {
        char part[FILE_PATH_MAX];
        const char *end = strstr(at, ": ");
        size_t n = end ? (size_t)(end - at) : strlen(at);
        const char *quote = memchr(at, '"', n);
        if (quote && n > 0 && at[n - 1] == '"' && quote < at + n - 1) { /* tokenizer "PATH" */
            n = (size_t)(at + n - 1 - (quote + 1));
            at = quote + 1;
        }
        struct stat info;
        if (n > 0 && n < sizeof part) {
            memcpy(part, at, n);
            part[n] = 0;
            if (stat(part, &info) == 0 && S_ISREG(info.st_mode)) {
                found = true;
                strcpy(path, part);
            }
        }
        at = end ? end + 2 : at + strlen(at);
    }
    return found;
}

void audit_refusal(const Cli *cli, const char *verb, const Error *said)
{
    char path[FILE_PATH_MAX], sha256[SHA256_HEX_SIZE];
    struct stat info;
    Store *store;
    if (!file_exists(cli->db) || store_open(&store, cli->db, STORE_WRITE, WAIT_MS, NULL)) {
        return;
    }
    Text line = {0};
    text_printf(&line, "%s: %s", verb, said->message);
    if (find_path(path, said->message) && stat(path, &info) == 0 &&
        info.st_size <= MAX_HASHED_BYTES && sha256_file(sha256, path, NULL) == STATUS_OK) {
        text_printf(&line, "; SHA-256 of %s: %s", path, sha256);
    }
    store_event(store, NULL, -1, "refused", text_string(&line), cli_now_s(), NULL);
    text_release(&line);
    store_close(store);
}
