/* Files read whole within a bound, and written so that a crash leaves the old or the new, never a
 * part. Only regular files are read: no FIFO blocks and no device runs forever. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "core/status.h"

#define FILE_PATH_MAX 4096

/* fd: open for reading, the caller closes it. Errors: STATUS_FAILED (the system's words),
 * STATUS_REFUSED for anything that is not a regular file. */
Status file_open(int *fd, size_t *n_bytes, const char *path, Error *error);
/* bytes: (n + 1) malloc'ed, a NUL after the last. Errors: as file_open; STATUS_REFUSED above
 * max_bytes. */
Status file_read(char **bytes, size_t *n, const char *path, size_t max_bytes, Error *error);
/* The real path of what is open at fd, all links followed. path: as it was opened, for messages. */
Status file_real_path(char real[FILE_PATH_MAX], int fd, const char *path, Error *error);
bool file_exists(const char *path); /* anything of that name, a dangling link too */
bool directory_exists(const char *path);
/* A folder with at least one entry, or something that is no folder. */
bool directory_occupied(const char *path);
/* The folder with all that leads to it; one that is there already is fine. */
Status directory_make(const char *path, Error *error);

/* What a file of the wrong kind is by its first bytes ("a git-lfs pointer ...", "an HTML page"), or
 * NULL. */
const char *file_disguise(const void *bytes, size_t n);

/* "folder/name" into path. Errors: STATUS_FAILED when it does not fit. */
Status path_join(char path[FILE_PATH_MAX], const char *folder, const char *name, Error *error);

/* A file that appears at its path only when committed: temporary file beside it, fsync, rename,
 * fsync of the folder. */
typedef struct {
    char path[FILE_PATH_MAX];
    char temporary[FILE_PATH_MAX + 64];
    int fd;
} FileWriter;
Status file_writer_open(FileWriter *writer, const char *path, Error *error);
Status file_writer_append(FileWriter *writer, const void *bytes, size_t n, Error *error);
/* After a failed append or commit call file_writer_cancel; after a commit nothing is left to do. */
Status file_writer_commit(FileWriter *writer, Error *error);
void file_writer_cancel(FileWriter *writer);
Status file_write(const char *path, const void *bytes, size_t n, Error *error);

/* The same for a folder: fill writer->temporary, then commit renames it to path, which must not
 * exist or be empty. */
Status directory_writer_open(FileWriter *writer, const char *path, Error *error);
Status directory_writer_commit(FileWriter *writer, Error *error);
void directory_writer_cancel(
    FileWriter *writer); /* removes the temporary folder and the files in it */
