/* A line that a reward command wrote (reward_command.h): bytes of another program, read strictly.
 */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "core/text.h"

/* NULL, or why the line is no answer to row `id`; nothing is changed then. value: the reward,
 * finite; or trouble, appended: why there is none, never empty. */
const char *reward_answer_read(double *value, Text *trouble, const char *line, size_t n,
                               uint64_t id);
