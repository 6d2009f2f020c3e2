/* What a cache holds is another program's word: a reference is a hash or it is refused. */
#include "core/hub.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char LETTERS[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
static const char REVISION_LETTERS[] =
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/";
enum { MAX_NAME_BYTES = 200, MAX_REFERENCE_BYTES = 256, HASH_CHARACTERS = 40 };

/* The part of a name at text: how many bytes, 0 when it is none. */
static size_t count_letters(const char *text)
{
    return *text == '.' ? 0 : strspn(text, LETTERS);
}

bool hub_is_name(const char *name)
{
    size_t n_organisation = count_letters(name);
    if (n_organisation == 0 || name[n_organisation] != '/' || strlen(name) > MAX_NAME_BYTES) {
        return false;
    }
    const char *second = name + n_organisation + 1, *end = second + count_letters(second);
    if (end == second || (*end && *end != '@')) {
        return false;
    }
    /* References may have '/', such as refs/pr/1; none may climb. */
    return !*end || (end[1] && end[1] != '/' && !strstr(end, "..") &&
                     end[1 + strspn(end + 1, REVISION_LETTERS)] == 0);
}

static bool is_hash(const char *text)
{
    return strlen(text) == HASH_CHARACTERS && strspn(text, "0123456789abcdef") == HASH_CHARACTERS;
}

/* What a name is made of. */
typedef struct {
    char id[256];         /* ORG/NAME */
    char folder[300];     /* models--ORG--NAME */
    const char *revision; /* main unless given */
    bool given;
} HubName;

static void take_apart(HubName *out, const char *name)
{
    size_t n = strcspn(name, "@");
    size_t n_organisation = strcspn(name, "/");
    snprintf(out->id, sizeof out->id, "%.*s", (int)n, name);
    snprintf(out->folder, sizeof out->folder, "models--%.*s--%.*s", (int)n_organisation, name,
             (int)(n - n_organisation - 1), name + n_organisation + 1);
    out->given = name[n] == '@';
    out->revision = out->given ? name + n + 1 : "main";
}

/* How many snapshots there are; hash: of one of them. */
static int count_snapshots(char hash[HASH_CHARACTERS + 1], const char *repository)
{
    char path[FILE_PATH_MAX];
    int n = 0;
    if (path_join(path, repository, "snapshots", NULL) != STATUS_OK) {
        return 0;
    }
    DIR *folder = opendir(path);
    for (struct dirent *entry; folder && (entry = readdir(folder)) != NULL;) {
        if (is_hash(entry->d_name)) {
            n++;
            memcpy(hash, entry->d_name, HASH_CHARACTERS + 1);
        }
    }
    if (folder) {
        closedir(folder);
    }
    return n;
}

/* The commit hash of the revision. */
static Status read_reference(char hash[HASH_CHARACTERS + 1], const char *repository,
                             const HubName *name, Error *error)
{
    char path[FILE_PATH_MAX], inside[300];
    if (is_hash(name->revision)) {
        strcpy(hash, name->revision);
        return STATUS_OK;
    }
    snprintf(inside, sizeof inside, "refs/%s", name->revision);
    Status status = path_join(path, repository, inside, error);
    if (status != STATUS_OK) {
        return status;
    }
    if (!file_exists(path)) {
        char only[320] = "";
        if (count_snapshots(hash, repository) == 1) {
            snprintf(only, sizeof only, "; there is %s@%s", name->id, hash);
        }
        return error_set(error, STATUS_REFUSED,
                         "%s: has no revision \"%.100s\"; `hf download %s%s%s` fetches it%s",
                         repository, name->revision, name->id, name->given ? " --revision " : "",
                         name->given ? name->revision : "", only);
    }
    char *text;
    size_t n;
    status = file_read(&text, &n, path, MAX_REFERENCE_BYTES, error);
    if (status != STATUS_OK) {
        return status;
    }
    text[strcspn(text, "\r\n")] = 0;
    if (is_hash(text)) {
        strcpy(hash, text);
    } else {
        status = error_set(error, STATUS_REFUSED, "%s: is no commit hash of 40 hex digits", path);
    }
    free(text);
    return status;
}

static Status find_snapshot(char directory[FILE_PATH_MAX], const char *repository,
                            const HubName *name, Error *error)
{
    char hash[HASH_CHARACTERS + 1] = "", inside[64];
    Status status = read_reference(hash, repository, name, error);
    if (status != STATUS_OK) {
        return status;
    }
    snprintf(inside, sizeof inside, "snapshots/%s", hash);
    status = path_join(directory, repository, inside, error);
    if (status == STATUS_OK && !directory_exists(directory)) {
        status = error_set(error, STATUS_REFUSED,
                           "%s: is missing, an unfinished download; `hf download %s%s%s` goes on "
                           "with it",
                           directory, name->id, name->given ? " --revision " : "",
                           name->given ? name->revision : "");
    }
    return status;
}

Status hub_find(char directory[FILE_PATH_MAX], const char *name, const char *folders, Error *error)
{
    HubName parts;
    char folder[FILE_PATH_MAX], repository[FILE_PATH_MAX];
    take_apart(&parts, name);
    for (const char *at = folders ? folders : ""; *at;) {
        size_t n = strcspn(at, ":");
        if (n > 0 && n < sizeof folder) {
            memcpy(folder, at, n);
            folder[n] = 0;
            if (path_join(repository, folder, parts.folder, NULL) == STATUS_OK &&
                directory_exists(repository)) {
                Status status = find_snapshot(directory, repository, &parts, error);
                return status == STATUS_OK ? STATUS_OK
                                           : error_context(error, status, "model \"%s\"", name);
            }
        }
        at += n + (at[n] == ':');
    }
    return error_set(error, STATUS_REFUSED,
                     "model \"%s\": there is no such directory, and no %s in \"%.400s\"; `hf "
                     "download %s%s%s` fetches it (with older tools: huggingface-cli download)",
                     name, parts.folder, folders ? folders : "", parts.id,
                     parts.given ? " --revision " : "", parts.given ? parts.revision : "");
}

/* Where in a path ".../models--ORG--NAME/snapshots/HASH" the repository ends, or 0. */
static size_t repository_of(const char *directory)
{
    size_t n = strlen(directory);
    while (n > 1 && directory[n - 1] == '/') {
        n--;
    }
    static const char middle[] = "/snapshots/";
    size_t n_middle = sizeof middle - 1;
    if (n < HASH_CHARACTERS + n_middle ||
        strspn(directory + n - HASH_CHARACTERS, "0123456789abcdef") < HASH_CHARACTERS ||
        strncmp(directory + n - HASH_CHARACTERS - n_middle, middle, n_middle) != 0) {
        return 0;
    }
    size_t end = n - HASH_CHARACTERS - n_middle, start = end;
    while (start > 0 && directory[start - 1] != '/') {
        start--;
    }
    return strncmp(directory + start, "models--", 8) == 0 ? end : 0;
}

void hub_hint(Text *out, const char *directory)
{
    size_t end = repository_of(directory), start = end;
    while (start > 0 && directory[start - 1] != '/') {
        start--;
    }
    if (end) {
        const char *name = directory + start + strlen("models--");
        size_t n = end - start - strlen("models--");
        text_add(out, "; an unfinished download? `hf download ");
        for (size_t i = 0; i < n; i++) {
            bool divides = name[i] == '-' && i + 1 < n && name[i + 1] == '-';
            text_printf(out, "%c", divides ? '/' : name[i]);
            i += divides;
        }
        text_add(out, "` goes on with it");
    }
}

bool hub_blobs(char path[FILE_PATH_MAX], const char *directory)
{
    size_t end = repository_of(directory);
    return end && snprintf(path, FILE_PATH_MAX, "%.*s/blobs", (int)end, directory) < FILE_PATH_MAX;
}

bool hub_link_stays(const char *directory, const char *target)
{
    size_t n = strlen(directory), end = repository_of(directory);
    static const char blobs[] = "/blobs/";
    return (strncmp(target, directory, n) == 0 && target[n] == '/') ||
           (end && strncmp(target, directory, end) == 0 &&
            strncmp(target + end, blobs, sizeof blobs - 1) == 0);
}
