/* Runs gnuplot on a script: a process without a shell, with a time limit. */
#pragma once
#include "core/status.h"

enum { GNUPLOT_LIMIT_S = 120 };

/* `program -d script` in folder (a path without '/' is looked for on the PATH); what it says goes
 * to the file "messages" there. Errors: STATUS_FAILED: it cannot be started (what to install), it
 * did not end in time, its own last words. */
Status gnuplot_run(const char *program, const char *folder, const char *script, Error *error);
