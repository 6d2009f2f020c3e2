/* The one sentence of an error, built from the inside out. */
#include "core/status.h"

#include <stdio.h>
#include <string.h>

/* Control characters of hostile input never reach a terminal. */
static void make_one_line(char *text)
{
    for (; *text; text++) {
        if ((unsigned char)*text < 0x20 || *text == 0x7f) {
            *text = '?';
        }
    }
}

Status error_set(Error *error, Status status, const char *format, ...)
{
    if (error) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(error->message, sizeof error->message, format, arguments);
        va_end(arguments);
        make_one_line(error->message);
    }
    return status;
}

Status error_context(Error *error, Status status, const char *format, ...)
{
    if (error) {
        char inner[sizeof error->message];
        memcpy(inner, error->message, sizeof inner);
        va_list arguments;
        va_start(arguments, format);
        int n = vsnprintf(error->message, sizeof error->message, format, arguments);
        va_end(arguments);
        if (n >= 0 && (size_t)n < sizeof error->message) {
            size_t left = sizeof error->message - (size_t)n;
            snprintf(error->message + n, left, ": %.*s", (int)left - 1, inner);
        }
        make_one_line(error->message);
    }
    return status;
}
