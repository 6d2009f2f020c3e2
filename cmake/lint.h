/* For analysers, which see one file at a time (cmake/lint.sh includes it before each): the status that error_set and
 * error_context return is the one they were given, so that a caller that checks it does not go on with what was not set. */
#pragma once
#include "core/status.h"

#define error_set(error, status, ...) ((error_set)(error, status, __VA_ARGS__), (status))
#define error_context(error, status, ...) ((error_context)(error, status, __VA_ARGS__), (status))
