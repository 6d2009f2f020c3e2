/* The only file that starts processes. Invariants:
 * 1. between calls the process, if there is one, has answered everything that it was sent;
 * 2. a process that broke the protocol is killed before the next row is asked;
 * 3. time is counted in differences of at most a second, so that a clock that jumps, or a laptop
 *    that slept, is not the command's fault. */
#define _GNU_SOURCE /* pipe2 */
#include "rl/reward_command.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "rl/reward_answer.h"

enum { POLL_MS = 20, FAREWELL_MS = 200, LINE_BYTES = 1 << 20, TRIES = 2, BAD_ROWS = 3 };
enum { GUARD_FD = 3, FIRST_FD = 10 };

/* A guard that outlives nothing: it kills the group, itself among it, when our end of its pipe is
 * closed. Python is told not to keep its answers in a buffer. */
static const char script[] =
    "(read _ <&3; kill -9 0) </dev/null >/dev/null 2>&1 & exec 3<&-; PYTHONUNBUFFERED=1; "
    "export PYTHONUNBUFFERED; exec /bin/sh -c \"$1\"";

struct RewardCommand {
    char *command;
    double limit_s;
    RewardHost host;
    pid_t pid;           /* 0: not running */
    int to, from, guard; /* our ends of its pipes; -1: closed */
    Text unread;         /* of its output, after the last whole line */
    uint64_t next_id;    /* of the row that is sent next */
};

/* One call. */
typedef struct {
    RewardCommand *command;
    const RewardRow *rows;
    double *values;
    Text *reasons;
    int n, done;       /* rows; those that are answered or given up */
    uint64_t first_id; /* of row 0 */
    Text requests;
    size_t sent; /* of requests */
    double waited_s, last_s;
    int tries;    /* of row `done` */
    int bad_rows; /* given up since the last good one */
} Asking;

RewardCommand *reward_command_new(const char *command, double limit_s, const RewardHost *host)
{
    RewardCommand *made = calloc(1, sizeof *made);
    char *copy = strdup(command);
    if (!made || !copy) {
        abort(); /* a line of a config */
    }
    *made = (RewardCommand){
        .command = copy, .limit_s = limit_s, .host = *host, .to = -1, .from = -1, .guard = -1};
    return made;
}

static void close_end(int *end)
{
    if (*end >= 0) {
        close(*end);
    }
    *end = -1;
}

/* Ends the process and its group; its exit status. */
static int end_process(RewardCommand *command)
{
    int status = 0;
    if (command->pid) {
        kill(-command->pid, SIGKILL);
        while (waitpid(command->pid, &status, 0) < 0 && errno == EINTR) {
        }
    }
    command->pid = 0;
    close_end(&command->to);
    close_end(&command->from);
    close_end(&command->guard);
    text_clear(&command->unread);
    return status;
}

void reward_command_free(RewardCommand *command)
{
    if (!command) {
        return;
    }
    close_end(
        &command->to); /* the end of its input: most leave by themselves, their files closed */
    for (int waited = 0; command->pid && waited < FAREWELL_MS; waited += POLL_MS) {
        siginfo_t gone = {0};
        if (waitid(P_PID, (id_t)command->pid, &gone, WEXITED | WNOHANG | WNOWAIT) || gone.si_pid) {
            break;
        }
        poll(NULL, 0, POLL_MS);
    }
    end_process(command);
    text_release(&command->unread);
    free(command->command);
    free(command);
}

/* Both ends at FIRST_FD or above, so that dup2 in the child never overwrites one that is needed. */
static bool make_pipe(int ends[2])
{
    int low[2];
    if (pipe2(low, O_CLOEXEC)) {
        return false;
    }
    for (int i = 0; i < 2; i++) {
        ends[i] = fcntl(low[i], F_DUPFD_CLOEXEC, FIRST_FD);
        close(low[i]);
    }
    if (ends[0] < 0 || ends[1] < 0) {
        close_end(&ends[0]);
        close_end(&ends[1]);
        return false;
    }
    return true;
}

static int spawn(pid_t *pid, const char *command, const int ends[3])
{
    char *const arguments[] = {
        "sh", "-c", (char *)(uintptr_t)script, "reward", (char *)(uintptr_t)command, NULL};
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t all, none;
    sigfillset(&all);
    sigemptyset(&none);
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    posix_spawn_file_actions_adddup2(&actions, ends[0], STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    posix_spawn_file_actions_adddup2(&actions, ends[2], GUARD_FD);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF |
                                              POSIX_SPAWN_SETSIGMASK);
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setsigmask(&attributes, &none);
    int code = posix_spawn(pid, "/bin/sh", &actions, &attributes, arguments, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return code;
}

static Status start(RewardCommand *command, Error *error)
{
    int in[2] = {-1, -1}, out[2] = {-1, -1}, guard[2] = {-1, -1};
    int code = EMFILE;
    bool piped = make_pipe(in) && make_pipe(out) && make_pipe(guard);
    if (piped) {
        code = spawn(&command->pid, command->command, (const int[]){in[0], out[1], guard[0]});
    }
    close_end(&in[0]);
    close_end(&out[1]);
    close_end(&guard[0]);
    command->to = in[1];
    command->from = out[0];
    command->guard = guard[1];
    if (code) {
        command->pid = 0;
        end_process(command);
        return error_set(error, STATUS_FAILED, "cannot be started: %s", strerror(code));
    }
    fcntl(command->to, F_SETFL, O_NONBLOCK);
    fcntl(command->from, F_SETFL, O_NONBLOCK);
    return STATUS_OK;
}

static void add_request(Text *out, uint64_t id, const RewardRow *row)
{
    text_printf(out, "{\"id\": %llu, \"prompt\": ", (unsigned long long)id);
    text_json_string(out, row->prompt, row->n_prompt);
    text_add(out, ", \"completion\": ");
    text_json_string(out, row->completion, row->n_completion);
    text_add(out, ", \"answer\": ");
    text_json_string(out, row->answer, row->n_answer);
    text_add(out, "}\n");
}

/* All rows that are left, to a process that knows of none. */
static Status begin(Asking *asking, Error *error)
{
    Status status = start(asking->command, error);
    text_clear(&asking->requests);
    for (int i = asking->done; i < asking->n && !status; i++) {
        add_request(&asking->requests, asking->first_id + (uint64_t)i, &asking->rows[i]);
    }
    asking->sent = 0;
    asking->waited_s = 0;
    return status;
}

/* The row is answered or given up. */
static void next_row(Asking *asking)
{
    asking->done++;
    asking->tries = 0;
    asking->waited_s = 0;
}

/* The process is of no use any more: the row is asked again, or given up. */
static Status give_up(Asking *asking, const char *reason, Error *error)
{
    end_process(asking->command);
    if (++asking->tries < TRIES) {
        return STATUS_OK;
    }
    text_add(&asking->reasons[asking->done], reason);
    next_row(asking);
    if (++asking->bad_rows == BAD_ROWS) {
        return error_set(error, STATUS_FAILED, "%d rows in a row got no answer; the last: %s",
                         BAD_ROWS, reason);
    }
    return STATUS_OK;
}

/* NULL, or why the line is no answer to row `done`. */
static const char *take_line(Asking *asking, const char *line, size_t n)
{
    Text *reason = &asking->reasons[asking->done];
    const char *wrong = reward_answer_read(&asking->values[asking->done], reason, line, n,
                                           asking->first_id + (uint64_t)asking->done);
    if (!wrong) {
        asking->bad_rows = reason->n ? asking->bad_rows : 0;
        next_row(asking);
    }
    return wrong;
}

static bool is_blank(const char *line, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!strchr(" \t\r", line[i]) || !line[i]) {
            return false;
        }
    }
    return true;
}

static Status take_lines(Asking *asking, Error *error)
{
    Text *unread = &asking->command->unread;
    size_t at = 0;
    for (char *end; (end = memchr(unread->bytes + at, '\n', unread->n - at));) {
        size_t n = (size_t)(end - unread->bytes) - at;
        if (!is_blank(unread->bytes + at, n)) {
            if (asking->done == asking->n) {
                break; /* more than was asked */
            }
            const char *wrong = take_line(asking, unread->bytes + at, n);
            if (wrong) {
                return give_up(asking, wrong, error);
            }
        }
        at += n + 1;
    }
    unread->n -= at;
    memmove(unread->bytes, unread->bytes + at, unread->n);
    return unread->n > LINE_BYTES ? give_up(asking, "it wrote a line longer than a mebibyte", error)
                                  : STATUS_OK;
}

static Status ended(Asking *asking, Error *error)
{
    char reason[120];
    siginfo_t gone = {0}; /* it may have closed its output and live on: not for long */
    for (int waited = 0; waited < FAREWELL_MS && !gone.si_pid; waited += POLL_MS) {
        if (waitid(P_PID, (id_t)asking->command->pid, &gone, WEXITED | WNOHANG | WNOWAIT)) {
            break;
        }
        poll(NULL, 0, gone.si_pid ? 0 : POLL_MS);
    }
    if (!gone.si_pid) {
        return give_up(asking, "it closed its output before it answered", error);
    }
    int status = end_process(asking->command);
    if (WIFSIGNALED(status)) {
        snprintf(reason, sizeof reason, "it was ended by signal %d before it answered",
                 WTERMSIG(status));
    } else {
        snprintf(reason, sizeof reason, "it ended with exit code %d before it answered%s",
                 WEXITSTATUS(status),
                 WEXITSTATUS(status) == 127 ? " (is there such a command?)" : "");
    }
    return give_up(asking, reason, error);
}

static Status read_some(Asking *asking, Error *error)
{
    char bytes[1 << 16];
    ssize_t n = read(asking->command->from, bytes, sizeof bytes);
    if (n > 0) {
        text_append(&asking->command->unread, bytes, (size_t)n);
        return take_lines(asking, error);
    }
    return n < 0 && (errno == EAGAIN || errno == EINTR) ? STATUS_OK : ended(asking, error);
}

static void write_some(Asking *asking)
{
    ssize_t n = write(asking->command->to, asking->requests.bytes + asking->sent,
                      asking->requests.n - asking->sent);
    if (n > 0) {
        asking->sent += (size_t)n;
    } else if (n < 0 && errno != EAGAIN && errno != EINTR) {
        close_end(&asking->command->to); /* what it still answers is taken; then it has ended */
    }
}

/* Wait for the process once. */
static Status serve(Asking *asking, Error *error)
{
    RewardCommand *command = asking->command;
    bool writing = command->to >= 0 && asking->sent < asking->requests.n;
    struct pollfd ends[2] = {{.fd = command->from, .events = POLLIN},
                             {.fd = writing ? command->to : -1, .events = POLLOUT}};
    if (command->host.stopping(command->host.context)) {
        return error_set(error, STATUS_STOPPED, "stopped");
    }
    poll(ends, 2, POLL_MS);
    double now = command->host.now_s(command->host.context), passed = now - asking->last_s;
    asking->last_s = now;
    asking->waited_s += passed < 0 ? 0 : passed > 1 ? 1 : passed;
    if (ends[1].revents) {
        write_some(asking);
    }
    Status status = ends[0].revents ? read_some(asking, error) : STATUS_OK;
    if (!status && command->pid && asking->done < asking->n &&
        asking->waited_s > command->limit_s) { /* dribbling is no answer */
        char reason[120];
        snprintf(reason, sizeof reason, "no answer within %g s (does it flush every line?)",
                 command->limit_s);
        return give_up(asking, reason, error);
    }
    return status;
}

/* Output that answers nothing. */
static Status check_quiet(const RewardCommand *command, Error *error)
{
    struct pollfd end = {.fd = command->from, .events = POLLIN};
    bool pending = command->pid && poll(&end, 1, 0) > 0 && (end.revents & POLLIN);
    return pending || command->unread.n
               ? error_set(error, STATUS_FAILED,
                           "it wrote more than an answer a row: what belongs to which is not known")
               : STATUS_OK;
}

Status reward_command_ask(RewardCommand *command, double *values, Text *reasons,
                          const RewardRow *rows, int n, Error *error)
{
    Asking asking = {.command = command,
                     .rows = rows,
                     .values = values,
                     .reasons = reasons,
                     .n = n,
                     .first_id = command->next_id,
                     .last_s = command->host.now_s(command->host.context)};
    command->next_id += (uint64_t)n;
    for (int i = 0; i < n; i++) {
        values[i] = NAN;
        text_clear(&reasons[i]);
    }
    Status status = check_quiet(command, error);
    for (int i = 0; i < n && command->pid; i++) { /* to the process that is there already */
        add_request(&asking.requests, asking.first_id + (uint64_t)i, &rows[i]);
    }
    while (!status && asking.done < n) {
        if (!command->pid) {
            status = begin(&asking, error);
        }
        status = status ? status : serve(&asking, error);
    }
    status = status ? status : check_quiet(command, error);
    text_release(&asking.requests);
    if (status) {
        end_process(command);
        error_context(error, status, "reward command \"%.100s\"", command->command);
    }
    return status;
}
