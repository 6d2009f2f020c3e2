/* This process gives up what reading a stranger's file does not need: writing, the network,
 * programs, memory and time without end. There is no way back. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "core/status.h"
#include "core/text.h"

typedef struct {
    int landlock; /* the kernel's Landlock ABI; 0: it has none, files are not confined */
    bool seccomp; /* no sockets, no programs */
    bool limits;  /* memory written, processor time, open files, no core dump */
} Sandbox;

/* From now on files and folders below `readable` can be read, and nothing else: nothing can be
 * written or made, no program started, no socket opened (what is open stays so), with at most
 * SANDBOX_BYTES of memory of its own and `cpu_s` seconds of processor time. Where the kernel lacks
 * a part, `done` says so. readable: (n) paths. Errors: STATUS_FAILED where a part that is there
 * cannot be put in place. */
#define SANDBOX_BYTES ((size_t)2 << 30)
Status sandbox_enter(Sandbox *done, const char *const *readable, size_t n, double cpu_s,
                     Error *error);
/* The same for the files of a model directory, or for one file with what is read beside it; the
 * processor time by their sizes. */
Status sandbox_for_model(Sandbox *done, const char *path, Error *error);
/* Append {"landlock": 7, "seccomp": true, "limits": true}. */
void sandbox_json(const Sandbox *done, Text *out);
