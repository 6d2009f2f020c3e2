/* Runs the built program in a folder of its own and keeps what it printed. */
#pragma once
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char run_folder[64] = "/tmp/tinylora-cli-XXXXXX";

typedef struct {
    int code; /* exit code, or 1000 + signal */
    char *out, *err;
} Run;

/* The folder becomes the working directory; the cache of factors lies in it too. */
static inline int run_setup(void **state)
{
    (void)state;
    if (!mkdtemp(run_folder) || chdir(run_folder)) {
        return 1;
    }
    setenv("TINYLORA_CACHE", run_folder, 1);
    unsetenv("TINYLORA_DB");
    unsetenv("TINYLORA_MODELS");
    return 0;
}

static inline int run_teardown(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", run_folder);
    return chdir("/") || system(command);
}

static inline char *run_slurp(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file) {
        abort();
    }
    fseek(file, 0, SEEK_END);
    size_t n = (size_t)ftell(file);
    rewind(file);
    char *bytes = malloc(n + 1);
    if (!bytes || fread(bytes, 1, n, file) != n) {
        abort();
    }
    bytes[n] = 0;
    fclose(file);
    return bytes;
}

/* Start `tinylora ARGUMENTS` under a shell that becomes the program; prefix: such as "ulimit -f
 * 9;". */
static inline pid_t run_start(const char *prefix, const char *arguments)
{
    char command[4096];
    if (snprintf(command, sizeof command, "%s exec '" BUILD_DIR "/tinylora' %s", prefix,
                 arguments) >= (int)sizeof command) {
        abort();
    }
    pid_t pid = fork();
    if (pid == 0) {
        int out = open("stdout", O_WRONLY | O_CREAT | O_TRUNC, 0600);
        int err = open("stderr", O_WRONLY | O_CREAT | O_TRUNC, 0600);
        dup2(out, 1);
        dup2(err, 2);
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    return pid;
}

static inline Run run_wait(pid_t pid)
{
    int status;
    if (waitpid(pid, &status, 0) != pid) {
        abort();
    }
    return (Run){WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status),
                 run_slurp("stdout"), run_slurp("stderr")};
}

static inline Run run(const char *arguments)
{
    return run_wait(run_start("", arguments));
}

static inline void run_free(Run *r)
{
    free(r->out);
    free(r->err);
}

/* What was printed by a command that has to succeed. */
__attribute__((format(printf, 1, 2))) static inline char *run_done(const char *format, ...)
{
    char arguments[2048];
    va_list list;
    va_start(list, format);
    vsnprintf(arguments, sizeof arguments, format, list);
    va_end(list);
    Run r = run(arguments);
    if (r.code != 0) {
        fprintf(stderr, "tinylora %s: exit code %d\n%s", arguments, r.code, r.err);
        abort();
    }
    free(r.err);
    return r.out;
}

static inline void run_write(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    if (!file || fputs(text, file) < 0 || fclose(file)) {
        abort();
    }
}
