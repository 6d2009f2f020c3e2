/* Files read whole within a bound, and written by temporary name, fsync, rename, fsync of the
 * folder. */
#include "core/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

static Status system_error(Error *error, const char *path, const char *what)
{
    return error_set(error, STATUS_FAILED, "%s: %s: %s", path, what, strerror(errno));
}

Status file_open(int *fd, size_t *n_bytes, const char *path, Error *error)
{
    int opened = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (opened < 0 && errno == ENOENT && file_exists(path)) {
        return error_set(error, STATUS_REFUSED, "%s: is a link to nothing", path);
    }
    if (opened < 0) {
        return system_error(error, path, "cannot be opened");
    }
    struct stat info;
    if (fstat(opened, &info) != 0) {
        Status status = system_error(error, path, "cannot be examined");
        close(opened);
        return status;
    }
    if (!S_ISREG(info.st_mode)) {
        close(opened);
        return error_set(error, STATUS_REFUSED, "%s: %s", path,
                         S_ISDIR(info.st_mode) ? "is a directory, a file was expected"
                                               : "is not a regular file");
    }
    *fd = opened;
    *n_bytes = (size_t)info.st_size;
    return STATUS_OK;
}

Status file_read(char **bytes, size_t *n, const char *path, size_t max_bytes, Error *error)
{
    int fd;
    size_t size;
    Status status = file_open(&fd, &size, path, error);
    if (status != STATUS_OK) {
        return status;
    }
    if (size > max_bytes) {
        close(fd);
        return error_set(error, STATUS_REFUSED, "%s: has %zu bytes, at most %zu are read", path,
                         size, max_bytes);
    }
    char *buffer = malloc(size + 1);
    if (!buffer) {
        close(fd);
        return error_set(error, STATUS_FAILED, "%s: no memory for its %.3f GiB", path,
                         (double)size / 0x1p30);
    }
    size_t done = 0;
    while (done < size) {
        ssize_t got = read(fd, buffer + done, size - done);
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            status = got < 0 ? system_error(error, path, "cannot be read")
                             : error_set(error, STATUS_FAILED,
                                         "%s: became shorter while it was read", path);
            close(fd);
            free(buffer);
            return status;
        }
        done += (size_t)got;
    }
    close(fd);
    buffer[size] = 0;
    *bytes = buffer;
    *n = size;
    return STATUS_OK;
}

Status file_real_path(char real[FILE_PATH_MAX], int fd, const char *path, Error *error)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, real, FILE_PATH_MAX - 1);
    if (n > 0) {
        real[n] = 0;
        return STATUS_OK;
    }
    char *whole = realpath(path, NULL); /* no /proc here */
    if (!whole || strlen(whole) >= FILE_PATH_MAX) {
        free(whole);
        return system_error(error, path, "cannot be followed");
    }
    strcpy(real, whole);
    free(whole);
    return STATUS_OK;
}

bool file_exists(const char *path)
{
    struct stat info;
    return lstat(path, &info) == 0;
}

bool directory_exists(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

bool directory_occupied(const char *path)
{
    DIR *folder = opendir(path);
    if (!folder) {
        return file_exists(path);
    }
    bool occupied = false;
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        occupied =
            occupied || (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0);
    }
    closedir(folder);
    return occupied;
}

Status directory_make(const char *path, Error *error)
{
    char part[FILE_PATH_MAX];
    if (strlen(path) >= sizeof part) {
        return error_set(error, STATUS_FAILED, "the path is longer than %d bytes: %.60s...",
                         FILE_PATH_MAX - 1, path);
    }
    strcpy(part, path);
    for (char *c = part + 1; *part && *c; c++) {
        if (*c == '/') { /* what is wrong with a parent shows at its child */
            *c = 0;
            mkdir(part, 0777);
            *c = '/';
        }
    }
    int code = mkdir(part, 0777) == 0 ? 0 : errno;
    if (code && !directory_exists(part)) {
        errno = code;
        return system_error(error, path, "cannot be created");
    }
    return STATUS_OK;
}

const char *file_disguise(const void *bytes, size_t n)
{
    static const struct {
        const char *start, *name;
    } disguises[] = {
        {"version https://git-lfs", "is a git-lfs pointer, not the file itself (run git lfs pull)"},
        {"<!doctype", "is an HTML page, not the file itself (a failed download?)"},
        {"<html", "is an HTML page, not the file itself (a failed download?)"},
        {"Entry not found", "is what a server says of a file that it has not"},
        {"Invalid username or password", "is what a server says of a file that wants a login"},
        {"Access to model ", "is what a server says of a file that wants a login"},
        {"PK\x03\x04", "is a zip archive (perhaps a PyTorch file), which is never opened"},
        {"\x80\x02", "is a Python pickle, which is never opened"},
        {"GGUF", "is a GGUF file"},
        {"\x1f\x8b", "is gzip data"},
        {"\xef\xbb\xbf", "starts with a UTF-8 byte order mark"},
        {"SQLite format 3", "is an SQLite database"},
    };
    const char *text = bytes;
    for (size_t i = 0; i < sizeof disguises / sizeof *disguises; i++) {
        size_t length = strlen(disguises[i].start);
        if (n >= length && strncasecmp(text, disguises[i].start, length) == 0) {
            return disguises[i].name;
        }
    }
    return NULL;
}

Status path_join(char path[FILE_PATH_MAX], const char *folder, const char *name, Error *error)
{
    size_t n = strlen(folder);
    const char *slash = n == 0 || folder[n - 1] == '/' ? "" : "/";
    int length = snprintf(path, FILE_PATH_MAX, "%s%s%s", folder, slash, name);
    if (length < 0 || length >= FILE_PATH_MAX) {
        return error_set(error, STATUS_FAILED, "%s/%s: the path is longer than %d bytes", folder,
                         name, FILE_PATH_MAX - 1);
    }
    return STATUS_OK;
}

/* path without trailing slashes into writer->path. */
static Status set_path(FileWriter *writer, const char *path, Error *error)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') {
        n--;
    }
    if (n == 0 || n >= FILE_PATH_MAX) {
        return error_set(error, STATUS_FAILED, "\"%.100s\": is not a path that can be written",
                         path);
    }
    memcpy(writer->path, path, n);
    writer->path[n] = 0;
    writer->fd = -1;
    return STATUS_OK;
}

/* The k-th temporary name: its own for each process, in the same folder. */
static void set_temporary(FileWriter *writer, int k)
{
    snprintf(writer->temporary, sizeof writer->temporary, "%s.tmp-%ld-%d", writer->path,
             (long)getpid(), k);
}

/* fsync the folder that holds path, so that a rename in it lasts. */
static Status sync_folder(const char *path, Error *error)
{
    char folder[FILE_PATH_MAX] = ".";
    const char *slash = strrchr(path, '/');
    if (slash) {
        size_t n = slash == path ? 1 : (size_t)(slash - path);
        memcpy(folder, path, n);
        folder[n] = 0;
    }
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        return system_error(error, folder, "cannot be opened");
    }
    /* EINVAL: a file system whose folders cannot be synced. */
    Status status =
        fsync(fd) == 0 || errno == EINVAL ? STATUS_OK : system_error(error, folder, "fsync");
    close(fd);
    return status;
}

Status file_writer_open(FileWriter *writer, const char *path, Error *error)
{
    Status status = set_path(writer, path, error);
    if (status != STATUS_OK) {
        return status;
    }
    for (int k = 0; k < 1000; k++) {
        set_temporary(writer, k);
        writer->fd = open(writer->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (writer->fd >= 0) {
            return STATUS_OK;
        }
        if (errno != EEXIST) {
            break;
        }
    }
    return system_error(error, writer->temporary, "cannot be created");
}

Status file_writer_append(FileWriter *writer, const void *bytes, size_t n, Error *error)
{
    const char *from = bytes;
    while (n > 0) {
        ssize_t put = write(writer->fd, from, n);
        if (put < 0 && errno == EINTR) {
            continue;
        }
        if (put < 0) {
            return system_error(error, writer->path, "cannot be written");
        }
        from += put;
        n -= (size_t)put;
    }
    return STATUS_OK;
}

Status file_writer_commit(FileWriter *writer, Error *error)
{
    if (fsync(writer->fd) != 0) {
        return system_error(error, writer->path, "cannot be written (fsync)");
    }
    int fd = writer->fd;
    writer->fd = -1;
    if (close(fd) != 0) {
        return system_error(error, writer->path, "cannot be written (close)");
    }
    if (rename(writer->temporary, writer->path) != 0) {
        return system_error(error, writer->path, "cannot be put in place");
    }
    return sync_folder(writer->path, error);
}

void file_writer_cancel(FileWriter *writer)
{
    if (writer->fd >= 0) {
        close(writer->fd);
        writer->fd = -1;
    }
    unlink(writer->temporary);
}

Status file_write(const char *path, const void *bytes, size_t n, Error *error)
{
    FileWriter writer;
    Status status = file_writer_open(&writer, path, error);
    if (status != STATUS_OK) {
        return status;
    }
    status = file_writer_append(&writer, bytes, n, error);
    if (status == STATUS_OK) {
        status = file_writer_commit(&writer, error);
    }
    if (status != STATUS_OK) {
        file_writer_cancel(&writer);
    }
    return status;
}

Status directory_writer_open(FileWriter *writer, const char *path, Error *error)
{
    Status status = set_path(writer, path, error);
    if (status != STATUS_OK) {
        return status;
    }
    for (int k = 0; k < 1000; k++) {
        set_temporary(writer, k);
        if (mkdir(writer->temporary, 0777) == 0) {
            return STATUS_OK;
        }
        if (errno != EEXIST) {
            break;
        }
    }
    return system_error(error, writer->temporary, "cannot be created");
}

Status directory_writer_commit(FileWriter *writer, Error *error)
{
    /* The entries first, then the name: the folder appears with everything in it. */
    char inside[sizeof writer->temporary + 2];
    snprintf(inside, sizeof inside, "%s/.", writer->temporary);
    Status status = sync_folder(inside, error);
    if (status != STATUS_OK) {
        return status;
    }
    if (rename(writer->temporary, writer->path) != 0) {
        return system_error(error, writer->path, "cannot be put in place");
    }
    return sync_folder(writer->path, error);
}

void directory_writer_cancel(FileWriter *writer)
{
    DIR *folder = opendir(writer->temporary);
    if (!folder) {
        return;
    }
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            unlinkat(dirfd(folder), entry->d_name, 0);
        }
    }
    closedir(folder);
    rmdir(writer->temporary);
}
