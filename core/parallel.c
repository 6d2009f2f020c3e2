/* OpenMP's thread team, and the floating-point mode of each of its threads. */
#include "core/parallel.h"

#include <omp.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

void parallel_float_mode(void)
{
#if defined(__x86_64__)
    _mm_setcsr(_mm_getcsr() | 0x8040u); /* FTZ, DAZ */
#elif defined(__aarch64__)
    unsigned long fpcr;
    __asm__ volatile("mrs %0, fpcr" : "=r"(fpcr));
    __asm__ volatile("msr fpcr, %0" : : "r"(fpcr | (1ul << 24)));
#endif
}

void parallel_for(int n_tasks, int n_threads, void (*task)(void *context, int i, int thread),
                  void *context)
{
    if (n_threads > n_tasks) {
        n_threads = n_tasks;
    }
    if (n_threads <= 1) {
        parallel_float_mode();
        for (int i = 0; i < n_tasks; i++) {
            task(context, i, 0);
        }
        return;
    }
#pragma omp parallel num_threads(n_threads)
    {
        parallel_float_mode();
        int thread = omp_get_thread_num();
#pragma omp for schedule(dynamic, 1)
        for (int i = 0; i < n_tasks; i++) {
            task(context, i, thread);
        }
    }
}
