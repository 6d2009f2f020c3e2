/* Whether a process that results.db names still lives. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "results/store.h"

/* Clock ticks from the machine's boot to the start of its process pid; 0 where there is none, or
 * nothing to read it from. */
int64_t process_born(int64_t pid);

/* Certainly gone, as `here` can tell (its host and boot_id). In this boot: there is no such
 * process, or only a zombie, or a later one under its pid (born: what process_born said then; 0:
 * not known). In an earlier boot of this host: not heard of since this one began (silence_s: for
 * how long). A process of another host, or of another one of the same name, is never certainly
 * gone. */
bool process_is_gone(const Worker *here, const char *host, int64_t pid, const char *boot_id,
                     int64_t born, double silence_s);

/* May its work be taken over? It is gone; or it was not heard of for stale_s and is of another host
 * or boot, or stopped (SIGSTOP). One that runs in this boot never loses its work, whatever the
 * clock says. A time that lies as far ahead (a clock that jumped) says as little as an old one. */
bool process_is_over(const Worker *here, const char *host, int64_t pid, const char *boot_id,
                     int64_t born, double silence_s, double stale_s);
