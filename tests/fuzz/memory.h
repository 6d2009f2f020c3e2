/* Fuzz inputs as files in memory, for readers that take a path. */
#pragma once
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Pages that a file has are kept: that is faster than a new file. */
static inline void memory_fill(int fd, const void *bytes, size_t n)
{
    if (fd < 0 || pwrite(fd, bytes, n, 0) != (ssize_t)n || ftruncate(fd, (off_t)n) != 0) {
        abort();
    }
}

/* A file of its own, without a name. path: (64) out, good until the next call. */
static inline void memory_file(char path[64], const void *bytes, size_t n)
{
    static int fd = -1;
    if (fd < 0) {
        fd = memfd_create("fuzz", MFD_CLOEXEC);
    }
    memory_fill(fd, bytes, n);
    snprintf(path, 64, "/proc/self/fd/%d", fd);
}

static char memory_folder_path[64];

static inline void memory_folder_remove(void)
{
    char command[96];
    snprintf(command, sizeof command, "rm -rf %s", memory_folder_path);
    if (system(command) != 0) {
        perror(command);
    }
}

/* This process's folder in memory. It is gone when the process ends, but for a crash: run.sh
 * gives the folder a parent ($FUZZ_FOLDER) that it removes. */
static inline const char *memory_folder(void)
{
    if (!memory_folder_path[0]) {
        const char *parent = getenv("FUZZ_FOLDER");
        snprintf(memory_folder_path, sizeof memory_folder_path, "%.40s/fuzz-XXXXXX",
                 parent                          ? parent
                 : access("/dev/shm", W_OK) == 0 ? "/dev/shm"
                                                 : "/tmp");
        if (!mkdtemp(memory_folder_path) || atexit(memory_folder_remove) != 0) {
            abort();
        }
    }
    return memory_folder_path;
}

/* A file of that folder, which stays open: to be removed by nobody. path: (96) out. */
static inline void memory_folder_file(char path[96], const char *name, const void *bytes, size_t n)
{
    static struct {
        char name[31];
        int fd;
    } files[4];
    int i = 0;
    while (i < 4 && files[i].name[0] && strcmp(files[i].name, name) != 0) {
        i++;
    }
    if (i == 4 || strlen(name) >= sizeof files->name) {
        abort();
    }
    snprintf(path, 96, "%s/%s", memory_folder(), name);
    if (!files[i].name[0]) {
        strcpy(files[i].name, name);
        files[i].fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    }
    memory_fill(files[i].fd, bytes, n);
}

/* The first part of an input of two: up to the first NUL byte. rest, n_rest: what is after it. */
static inline size_t first_part(const uint8_t **rest, size_t *n_rest, const uint8_t *bytes,
                                size_t n)
{
    const uint8_t *end = n ? memchr(bytes, 0, n) : NULL;
    *rest = end ? end + 1 : bytes + n;
    *n_rest = end ? n - (size_t)(end - bytes) - 1 : 0;
    return end ? (size_t)(end - bytes) : n;
}
