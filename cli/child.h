/* Work in a process of its own, so that the peak of its memory, or its confinement, is its own.
 * This process must not have started threads before (opened a model, say): they do not live on in
 * the other one. */
#pragma once
#include <stddef.h>

#include "core/status.h"

/* Zeroed memory that the other process writes and this one reads. NULL when there is none. */
void *child_memory(size_t bytes);
void child_memory_release(void *memory, size_t bytes);

/* peak_mib: most memory that the process had at once, mapped files included.  work(context) runs
 * there; what it leaves in child_memory is its answer, its Status and Error are handed on. Errors:
 * STATUS_STOPPED when a signal came (the process is ended at once), STATUS_FAILED when it died. */
Status child_run(double *peak_mib, Status (*work)(void *context, Error *error), void *context,
                 Error *error);

/* The peak of this process so far. */
double child_peak_mib(void);
