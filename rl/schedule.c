/* Learning-rate schedules: pure functions of the step. */
#include "rl/schedule.h"

#include <math.h>
#include <string.h>

static const char *const names[] = {"constant", "linear", "cosine"};

const char *schedule_name(ScheduleKind kind)
{
    return names[kind];
}

bool schedule_find(ScheduleKind *kind, const char *name)
{
    for (int i = 0; i < 3; i++) {
        if (!strcmp(names[i], name)) {
            *kind = (ScheduleKind)i;
            return true;
        }
    }
    return false;
}

double schedule_rate(const Schedule *schedule, double lr, int64_t step, int64_t steps)
{
    int64_t warmup = schedule->warmup_steps;
    if (step <= warmup) {
        return lr * (double)step / (double)warmup;
    }
    if (schedule->kind == SCHEDULE_CONSTANT || steps <= warmup) {
        return lr;
    }
    double done = (double)(step - 1 - warmup) / (double)(steps - warmup);
    done = done < 1 ? done : 1;
    return schedule->kind == SCHEDULE_LINEAR ? lr * (1 - done)
                                             : lr * 0.5 * (1 + cos(3.14159265358979323846 * done));
}
