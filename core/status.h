/* What a function that meets the world returns, and the one sentence that says why.
 * A Status is also the exit code of the program (INTERFACE: exit codes). */
#pragma once
#include <stdarg.h>

typedef enum {
    STATUS_OK = 0,
    STATUS_FAILED = 1,  /* said in one line: I/O, memory, a diverged run */
    STATUS_USAGE = 2,   /* wrong command line or config */
    STATUS_REFUSED = 3, /* an input file broke a rule */
    STATUS_STOPPED = 4  /* a signal or a time limit; everything committed */
} Status;

typedef struct {
    char message[1024]; /* one line, no newline, UTF-8 */
} Error;

/* Write the message (replacing what was there) and return `status`. error may be NULL. */
Status error_set(Error *error, Status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Put "context: " before the message and return `status`; callers add their place going up. */
Status error_context(Error *error, Status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
