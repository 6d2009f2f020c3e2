/* Rewards from a child process: `/bin/sh -c COMMAND` reads a JSON object a line and answers each
 * with a line, in order:
 *     {"id": 7, "prompt": "...", "completion": "...", "answer": "..."}
 *     {"reward": 0.5}   or   {"error": "why there is none"}
 * Members that it adds are ignored, but an "id" that it gives back must be the row's. It is
 * started when it is first asked, lives from batch to batch, and is asked many rows at a time.
 *
 * Trouble never becomes a number. A row that the command gives an error has no reward (NaN) and a
 * reason. A command that ends, answers what is not an answer or takes longer than the limit is
 * killed and started again, and the row is asked once more; a row that fails twice has no reward;
 * three such rows in a row are an error of the whole call. So is output that nobody asked for,
 * since it cannot be said to which row anything belongs.
 *
 * The process has a process group of its own, which is killed with SIGKILL by reward_command_free,
 * and by a guard inside it at the death of this process, whatever the death. What it writes to
 * stderr goes where ours goes. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "core/status.h"
#include "core/text.h"

/* What waiting for another process needs of the world. */
typedef struct {
    void *context;
    double (*now_s)(void *context); /* may jump */
    bool (*stopping)(void *context);
} RewardHost;

typedef struct {
    const char *prompt, *completion, *answer;
    size_t n_prompt, n_completion, n_answer;
} RewardRow;

typedef struct RewardCommand RewardCommand;

/* limit_s: how long a row's answer may take, counted from the answer before it. The process must
 * ignore SIGPIPE. host is copied. */
RewardCommand *reward_command_new(const char *command, double limit_s, const RewardHost *host);
void reward_command_free(RewardCommand *command);

/* values: (n) NaN where there is none; reasons: (n) emptied, then why there is none. Errors:
 * STATUS_STOPPED within 50 ms of host->stopping; STATUS_FAILED. The process is gone then. */
Status reward_command_ask(RewardCommand *command, double *values, Text *reasons,
                          const RewardRow *rows, int n, Error *error);
