/* Looks at /proc where there is one, and asks the kernel with signal 0 where there is not. */
#define _GNU_SOURCE
#include "results/process.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysinfo.h>

/* State letter and start of a process (proc_pid_stat(5), fields 3 and 22); false: no such file. */
static bool look(int64_t pid, char *state, int64_t *born)
{
    char path[64], line[2048] = {0};
    snprintf(path, sizeof path, "/proc/%" PRId64 "/stat", pid);
    FILE *file = fopen(path, "r");
    if (!file) {
        return false;
    }
    size_t n = fread(line, 1, sizeof line - 1, file);
    fclose(file);
    line[n] = 0;
    const char *end = strrchr(line, ')'); /* of the name, which may hold anything */
    return end && sscanf(end,
                         ") %c %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s "
                         "%*s %*s %" SCNd64,
                         state, born) == 2;
}

int64_t process_born(int64_t pid)
{
    char state;
    int64_t born = 0;
    return pid > 0 && look(pid, &state, &born) ? born : 0;
}

bool process_is_gone(const Worker *here, const char *host, int64_t pid, const char *boot_id,
                     int64_t born, double silence_s)
{
    char state = 'R';
    int64_t found = 0;
    if (strcmp(here->host, host) != 0) {
        return false;
    }
    if (strcmp(here->boot_id, boot_id) != 0) {
        struct sysinfo info;
        return sysinfo(&info) == 0 && silence_s > (double)info.uptime + 1;
    }
    if (pid <= 0 || pid > INT32_MAX || (kill((pid_t)pid, 0) != 0 && errno == ESRCH)) {
        return true;
    }
    return look(pid, &state, &found) &&
           (state == 'Z' || state == 'X' || (born != 0 && found != born));
}

bool process_is_over(const Worker *here, const char *host, int64_t pid, const char *boot_id,
                     int64_t born, double silence_s, double stale_s)
{
    char state = 'T'; /* nothing to read it from: time alone says */
    int64_t found;
    if (process_is_gone(here, host, pid, boot_id, born, silence_s)) {
        return true;
    }
    bool near = strcmp(here->host, host) == 0 && strcmp(here->boot_id, boot_id) == 0;
    return !(fabs(silence_s) < stale_s) && (!near || !look(pid, &state, &found) || state == 'T');
}
