/* Data sets that are known by name (data.task): which fields they have, how a question becomes a
 * prompt, how an answer is judged, and what their files are called. Nothing of them is shipped. */
#pragma once
#include "experiments/settings.h"

/* Settle what data.task says of settings that were not given: data.question, answer, template,
 * train and eval, and the reward. The files are looked for in data.folder. Errors: STATUS_USAGE: the
 * key and the rule, without the config. */
Status known_task_settle(RunSpec *spec, Error *error);

/* All that the task says of its rows and their judging, whatever was given before; its test rows
 * from `place`, a folder or the file itself ("": data.folder's). Errors: STATUS_USAGE. */
Status known_task_use(RunSpec *spec, const char *task, const char *place, Error *error);
