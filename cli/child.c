/* Forks, waits, looks at signals meanwhile. */
#define _GNU_SOURCE
#include "cli/child.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"

void *child_memory(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

void child_memory_release(void *memory, size_t bytes)
{
    if (memory) {
        munmap(memory, bytes);
    }
}

double child_peak_mib(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_maxrss / 1024;
}

/* Signals are the first process's to answer; the other one ends with it. */
static void begin_child(pid_t parent)
{
    static const int caught[] = {SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM};
    for (size_t i = 0; i < sizeof caught / sizeof caught[0]; i++) {
        signal(caught[i], SIG_DFL);
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) {
        _exit(STATUS_STOPPED);
    }
}

/* Returns what wait4 does, after the process has ended or was ended because of a signal. */
static pid_t wait_for(pid_t pid, int *ended, struct rusage *usage)
{
    const struct timespec pause = {0, 5000000};
    pid_t got;
    while ((got = wait4(pid, ended, WNOHANG, usage)) == 0) {
        if (cli_stopping()) {
            kill(pid, SIGKILL);
            return wait4(pid, ended, 0, usage);
        }
        nanosleep(&pause, NULL);
    }
    return got;
}

Status child_run(double *peak_mib, Status (*work)(void *context, Error *error), void *context,
                 Error *error)
{
    Error *told = child_memory(sizeof *told);
    pid_t self = getpid(), pid = told ? fork() : -1;
    if (pid < 0) {
        int why = errno;
        child_memory_release(told, sizeof *told);
        return error_set(error, STATUS_FAILED, "starting a process: %s", strerror(why));
    }
    if (pid == 0) {
        begin_child(self);
        _exit((int)work(context, told));
    }
    int ended = 0;
    struct rusage usage = {0};
    Status status = STATUS_OK;
    if (wait_for(pid, &ended, &usage) != pid) {
        status = error_set(error, STATUS_FAILED, "waiting for a process: %s", strerror(errno));
    } else if (cli_stopping()) {
        status = error_set(error, STATUS_STOPPED,
                           "stopped: nothing is kept, the same command begins anew");
    } else if (!WIFEXITED(ended)) {
        status = error_set(error, STATUS_FAILED, "the process at work was ended by signal %d%s",
                           WTERMSIG(ended),
                           WTERMSIG(ended) == SIGKILL ? " (is there memory enough?)" : "");
    } else if (WEXITSTATUS(ended)) {
        status = error_set(error, (Status)WEXITSTATUS(ended), "%s", told->message);
    }
    *peak_mib = (double)usage.ru_maxrss / 1024;
    child_memory_release(told, sizeof *told);
    return status;
}
