/* Runs gnuplot on a script: a process without a shell, with a time limit. */
#define _GNU_SOURCE
#include "analysis/figure_gnuplot.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "core/file.h"

static const char messages[] = "messages"; /* beside the script */
enum { MESSAGES_MAX = 1 << 20, POLL_MS = 5 };

static Status start(pid_t *pid, const char *program, const char *folder, const char *script,
                    Error *error)
{
    posix_spawn_file_actions_t actions;
    char *arguments[] = {(char *)program, "-d", (char *)script, NULL};
    int wrong = posix_spawn_file_actions_init(&actions);
    if (wrong) {
        return error_set(error, STATUS_FAILED, "\"%.300s\": %s", program, strerror(wrong));
    }
    wrong = posix_spawn_file_actions_addchdir_np(&actions, folder);
    wrong =
        wrong ? wrong
              : posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    wrong = wrong ? wrong
                  : posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, messages,
                                                     O_WRONLY | O_CREAT | O_TRUNC, 0666);
    wrong =
        wrong ? wrong : posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
    /* The environment is passed on unread: a gnuplot from a cluster's module needs its own. */
    wrong = wrong ? wrong : posix_spawnp(pid, program, &actions, NULL, arguments, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (wrong) {
        return error_set(error, STATUS_FAILED,
                         "\"%.300s\" cannot be started (%s): install gnuplot-nox", program,
                         strerror(wrong));
    }
    return STATUS_OK;
}

/* No clock is read: a fixed number of short sleeps. */
static bool ended(pid_t pid, int *how)
{
    const struct timespec pause = {0, POLL_MS * 1000000L};
    for (int k = 0; k < GNUPLOT_LIMIT_S * 1000 / POLL_MS; k++) {
        pid_t done = waitpid(pid, how, WNOHANG);
        if (done == pid || (done < 0 && errno != EINTR)) {
            return true;
        }
        nanosleep(&pause, NULL);
    }
    kill(pid, SIGKILL);
    while (waitpid(pid, how, 0) < 0 && errno == EINTR) {
    }
    return false;
}

/* gnuplot's message is its last line with words; the lines before it show the place. */
static Status complain(const char *program, const char *folder, int how, Error *error)
{
    char path[FILE_PATH_MAX];
    char *bytes = NULL, *last = "it says nothing";
    size_t n;
    Error unreadable;
    if (!path_join(path, folder, messages, &unreadable) &&
        !file_read(&bytes, &n, path, MESSAGES_MAX, &unreadable)) {
        for (char *save, *line = strtok_r(bytes, "\r\n", &save); line;
             line = strtok_r(NULL, "\r\n", &save)) {
            last = strspn(line, " \t^") < strlen(line) ? line : last;
        }
    }
    error_set(error, STATUS_FAILED, "\"%.300s\" %s %d: %.500s", program,
              WIFSIGNALED(how) ? "was ended by signal" : "failed with exit code",
              WIFSIGNALED(how) ? WTERMSIG(how) : WEXITSTATUS(how), last);
    free(bytes);
    return STATUS_FAILED;
}

Status gnuplot_run(const char *program, const char *folder, const char *script, Error *error)
{
    char absolute[PATH_MAX];
    if (strchr(program, '/') && realpath(program, absolute)) {
        program = absolute;
    }
    pid_t pid;
    int how = 0;
    Status status = start(&pid, program, folder, script, error);
    if (status) {
        return status;
    }
    if (!ended(pid, &how)) {
        return error_set(error, STATUS_FAILED, "\"%.300s\" did not end within %d s", program,
                         GNUPLOT_LIMIT_S);
    }
    if (how != 0) {
        return complain(program, folder, how, error);
    }
    return STATUS_OK;
}
