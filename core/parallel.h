/* Work on several threads: tasks that do not know who runs them, so no number can depend on the
 * thread count. Every thread computes with denormals flushed to zero (they cost 12 times the time,
 * and one mode everywhere is the law). */
#pragma once

/* task(context, i, thread) for i in 0..n_tasks-1, in any order; thread < n_threads tells which
 * scratch to use. */
void parallel_for(int n_tasks, int n_threads, void (*task)(void *context, int i, int thread),
                  void *context);

/* Flush-to-zero and denormals-are-zero in the calling thread. */
void parallel_float_mode(void);
