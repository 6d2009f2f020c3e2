/* A refused file leaves a line in results.db, where there is one. */
#pragma once
#include "cli/cli.h"

/* An event of kind "refused": what was said, and the SHA-256 of the file where it is small. Nothing
 * is made for it, and where it cannot be written (another process has the database) it is left out.
 */
void audit_refusal(const Cli *cli, const char *verb, const Error *said);
