/* Landlock for files and TCP, seccomp for sockets and programs, limits for the rest; each without a
 * library. The kernel's newer structures are written out: Debian 12's headers end at ABI 2. */
#define _GNU_SOURCE
#include "cli/sandbox.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/hub.h"
#include "core/model_files.h"

#if defined(__SANITIZE_ADDRESS__)
enum { SANITIZED = 1 }; /* its shadow is terabytes */
#else
enum { SANITIZED = 0 };
#endif

static Status failed(const char *what, Error *error)
{
    return error_set(error, STATUS_FAILED, "the sandbox: %s: %s", what, strerror(errno));
}

/* ---- Landlock ------------------------------------------------------------------------------ */

typedef struct {
    uint64_t files, network, scoped; /* what is denied unless a rule allows it */
} Ruleset;

/* What each ABI added; an older kernel refuses bits that it does not know. */
static size_t denied_by(Ruleset *ruleset, int abi)
{
    static const int file_bits[] = {0, 13, 14, 15,
                                    15}; /* by ABI: up to MAKE_SYM, REFER, TRUNCATE */
    ruleset->files = ((uint64_t)1 << (abi >= 5 ? 16 : file_bits[abi])) - 1; /* 5: IOCTL_DEV */
    ruleset->network = abi >= 4 ? 3 : 0;                                    /* bind, connect */
    ruleset->scoped = abi >= 6 ? 3 : 0; /* abstract sockets, signals */
    return abi >= 6 ? 24 : abi >= 4 ? 16 : 8;
}

static Status allow_reading(int ruleset, const char *path, Error *error)
{
    struct stat info;
    int fd = open(path, O_PATH | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &info) != 0) {
        if (fd >= 0) {
            close(fd);
        }
        return STATUS_OK; /* whoever reads it will say what is wrong */
    }
    struct landlock_path_beneath_attr rule = {
        .allowed_access = LANDLOCK_ACCESS_FS_READ_FILE |
                          (S_ISDIR(info.st_mode) ? LANDLOCK_ACCESS_FS_READ_DIR : 0),
        .parent_fd = fd};
    long got = syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
    Status status = got ? failed(path, error) : STATUS_OK;
    close(fd);
    return status;
}

static Status confine_files(Sandbox *done, const char *const *readable, size_t n, Error *error)
{
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    if (abi < 1) {
        return STATUS_OK; /* not built in, or switched off */
    }
    Ruleset denied;
    size_t size = denied_by(&denied, (int)abi);
    int ruleset = (int)syscall(SYS_landlock_create_ruleset, &denied, size, 0);
    if (ruleset < 0) {
        return failed("Landlock", error);
    }
    static const char *const for_reports[] = {"/proc", "/usr", "/lib", "/lib64"};
    Status status = STATUS_OK;
    for (size_t i = 0; i < n && status == STATUS_OK; i++) {
        status = allow_reading(ruleset, readable[i], error);
    }
    for (size_t i = 0; SANITIZED && i < 4 && status == STATUS_OK; i++) {
        status = allow_reading(ruleset, for_reports[i], error);
    }
    if (status == STATUS_OK && syscall(SYS_landlock_restrict_self, ruleset, 0)) {
        status = failed("Landlock", error);
    }
    close(ruleset);
    done->landlock = status == STATUS_OK ? (int)abi : 0;
    return status;
}

/* ---- seccomp ------------------------------------------------------------------------------- */

#if defined(__x86_64__)
#define OUR_ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define OUR_ARCHITECTURE AUDIT_ARCH_AARCH64
#endif

static Status confine_calls(Sandbox *done, Error *error)
{
#ifdef OUR_ARCHITECTURE
#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define DENY BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EACCES)
#define DENY_CALL(number) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (number), 0, 1), DENY
    struct sock_filter filter[] = {
        LOAD(arch),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, OUR_ARCHITECTURE, 1, 0),
        DENY,
        LOAD(nr),
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000, 0, 1), /* x32's numbers */
        DENY,
        DENY_CALL(SYS_socket),
        DENY_CALL(SYS_io_uring_setup),
        DENY_CALL(SYS_execve),
        DENY_CALL(SYS_execveat),
        DENY_CALL(SANITIZED ? SYS_execve : SYS_ptrace), /* the search for leaks wants it */
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0) {
        done->seccomp = true;
    } else if (errno != EINVAL && errno != ENOSYS) { /* not built in */
        return failed("seccomp", error);
    }
#endif
    return STATUS_OK;
}

/* ---- limits -------------------------------------------------------------------------------- */

/* Never above what is there already. */
static bool limit(int what, rlim_t value)
{
    struct rlimit now;
    if (getrlimit(what, &now) != 0) {
        return false;
    }
    rlim_t most = now.rlim_max < value ? now.rlim_max : value;
    return setrlimit(what, &(struct rlimit){most, most}) == 0;
}

Status sandbox_enter(Sandbox *done, const char *const *readable, size_t n, double cpu_s,
                     Error *error)
{
    *done = (Sandbox){0};
    struct rusage used;
    getrusage(RUSAGE_SELF, &used);
    double spent_s = (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec);
    /* RLIMIT_DATA, not RLIMIT_AS: mapped weights may be larger than any memory. */
    done->limits = limit(RLIMIT_CORE, 0) && limit(RLIMIT_NOFILE, 64) &&
                   limit(RLIMIT_CPU, (rlim_t)(spent_s + cpu_s + 1)) &&
                   (SANITIZED || limit(RLIMIT_DATA, SANDBOX_BYTES));
    if (!done->limits) {
        return failed("limits", error);
    }
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
        return failed("no_new_privs", error);
    }
    Status status = confine_files(done, readable, n, error);
    return status == STATUS_OK ? confine_calls(done, error) : status;
}

/* ---- of a model ---------------------------------------------------------------------------- */

enum { MAX_READABLE = 16, CPU_FLOOR_S = 60 };
static const double CPU_BYTES_PER_S = 50e6;

typedef struct {
    char paths[MAX_READABLE][FILE_PATH_MAX];
    const char *list[MAX_READABLE];
    size_t n;
    double bytes;
} Readable;

/* A link is followed: what it leads to may be read too. */
static void add_readable(Readable *readable, const char *folder, const char *name)
{
    struct stat info;
    char *path = readable->paths[readable->n];
    if (readable->n < MAX_READABLE && path_join(path, folder, name, NULL) == STATUS_OK &&
        stat(path, &info) == 0) {
        readable->list[readable->n++] = path;
    }
}

/* A model directory, or the folder of an index. */
static void add_directory(Readable *readable, const char *directory)
{
    static const char *const names[] = {"config.json", "generation_config.json", "tokenizer.json",
                                        "model.safetensors", "model.safetensors.index.json"};
    char whole[FILE_PATH_MAX], blobs[FILE_PATH_MAX];
    add_readable(readable, directory, ".");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        add_readable(readable, directory, names[i]);
    }
    for (size_t i = 0; model_file_beside(i); i++) {
        add_readable(readable, directory, model_file_beside(i));
    }
    if (realpath(directory, whole) && hub_blobs(blobs, whole)) {
        add_readable(readable, blobs, ".");
    }
    DIR *folder = opendir(directory);
    for (struct dirent *entry; folder && (entry = readdir(folder)) != NULL;) {
        struct stat info;
        readable->bytes +=
            fstatat(dirfd(folder), entry->d_name, &info, 0) == 0 ? (double)info.st_size : 0;
    }
    if (folder) {
        closedir(folder);
    }
}

Status sandbox_for_model(Sandbox *done, const char *path, Error *error)
{
    Readable readable;
    struct stat info;
    char folder[FILE_PATH_MAX];
    readable.n = 0;
    readable.bytes = 0;
    snprintf(folder, sizeof folder, "%s", path);
    if (directory_exists(path)) {
        add_directory(&readable, path);
    } else if (strlen(path) < sizeof folder) {
        char *slash = strrchr(folder, '/');
        const char *name = slash ? path + (slash - folder) + 1 : path;
        strcpy(slash ? slash + 1 : folder, slash ? "" : ".");
        readable.bytes = stat(path, &info) == 0 ? (double)info.st_size : 0;
        add_readable(&readable, folder, name);
        add_readable(&readable, folder, "generation_config.json"); /* config.json's companion */
        if (strstr(name, ".index.json")) {
            add_directory(&readable, folder);
        }
    }
    return sandbox_enter(done, readable.list, readable.n,
                         CPU_FLOOR_S + readable.bytes / CPU_BYTES_PER_S, error);
}

void sandbox_json(const Sandbox *done, Text *out)
{
    text_printf(out, "{\"landlock\": %d, \"seccomp\": %s, \"limits\": %s}", done->landlock,
                done->seccomp ? "true" : "false", done->limits ? "true" : "false");
}
