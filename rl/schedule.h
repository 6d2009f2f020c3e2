/* Learning rate of a step. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

typedef enum { SCHEDULE_CONSTANT, SCHEDULE_LINEAR, SCHEDULE_COSINE } ScheduleKind;
const char *schedule_name(ScheduleKind kind);
bool schedule_find(ScheduleKind *kind, const char *name);

typedef struct {
    ScheduleKind kind;
    int64_t warmup_steps; /* lr * step / warmup during them */
} Schedule;

/* step: 1..steps. After the warm-up of W steps, with p = (step - 1 - W) / (steps - W): constant 1,
 * linear 1 - p, cosine (1 + cos(pi p)) / 2, times lr. */
double schedule_rate(const Schedule *schedule, double lr, int64_t step, int64_t steps);
