/* The law from outside: a sweep killed with SIGKILL at random moments and resumed, run one cell at
 * a time, or with other numbers of threads, leaves the same bytes in results.db as an undisturbed
 * one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <cmocka.h>

#include "tests/cli_dump.h"

enum { N_KILLS = 20, N_CELLS = 3 };
static const char *const rates[N_CELLS] = {"0.3", "0.02", "1e-3"};

/* KL and clipping are on, a group of a step has several updates, groups are replaced, the sampler
 * rounds, rows are evaluated on the way. */
#define CONFIG                                                                                     \
    "{\"experiment\": \"law\", \"model\": \"abacus\", \"adapter\": {\"budget\": 26},\n"            \
    " \"data\": {\"train\": \"" SOURCE_DIR "/models/abacus/train.jsonl\", \"dev\": \"" SOURCE_DIR  \
    "/models/abacus/dev.jsonl\"},\n"                                                               \
    " \"grpo\": {\"prompts_per_step\": 2, \"group_size\": 4, \"max_new_tokens\": 16, "             \
    "\"kl_beta\": 0.05,\n"                                                                         \
    "            \"updates_per_batch\": 2, \"loss\": \"gspo\", \"minibatches\": 2,\n"              \
    "            \"dynamic_sampling\": 2, \"overlong_buffer\": 8, \"entropy_coef\": 0.01,\n"       \
    "            \"rollout\": \"bf16\", \"importance_sampling_mode\": \"token_truncate\"},\n"      \
    " \"steps\": 8, \"eval\": {\"every\": 3, \"rows\": 5, \"samples\": 2}"

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static char *reference;
static double reference_s;

static int make_reference(void **state)
{
    if (run_setup(state)) {
        return 1;
    }
    run_write("sweep.json", CONFIG ", \"sweep\": {\"optimizer.lr\": [0.3, 0.02, 1e-3]}}");
    run_write("one.json", CONFIG "}");
    double began = seconds();
    Run r = run("--db whole.db sweep sweep.json --threads 2");
    reference_s = seconds() - began;
    if (r.code != 0) {
        print_error("%s\n", r.err);
        return 1;
    }
    run_free(&r);
    reference = dump_runs("whole.db");
    return 0;
}

static int drop_reference(void **state)
{
    free(reference);
    return run_teardown(state);
}

static void killed_at_random_moments_and_resumed_it_ends_in_the_same_bytes(void **state)
{
    (void)state;
    unsigned seed = (unsigned)time(NULL);
    print_message("seed %u\n", seed);
    srand(seed);
    int n_kills = 0;
    while (n_kills < N_KILLS) {
        pid_t pid = run_start("", "--db killed.db sweep sweep.json --threads 2");
        usleep((useconds_t)(1e6 * reference_s * 0.6 * rand() / RAND_MAX) + 1000);
        kill(pid, SIGKILL);
        Run r = run_wait(pid);
        assert_true(r.code == 0 || r.code == 1000 + SIGKILL);
        n_kills += r.code != 0;
        if (r.code == 0) { /* it came to its end before: compare, and begin again */
            assert_dump(reference, "killed.db");
            forget("killed.db");
        }
        run_free(&r);
    }
    Run r = run("--db killed.db sweep sweep.json --threads 2");
    if (r.code != 0) {
        print_error("%s\n", r.err);
    }
    assert_int_equal(r.code, 0);
    run_free(&r);
    assert_dump(reference, "killed.db");
    r = run("--db killed.db db check");
    assert_int_equal(r.code, 0);
    run_free(&r);
}

static void one_cell_at_a_time_it_is_the_fused_sweep_and_threads_do_not_show(void **state)
{
    (void)state;
    for (int i = 0; i < N_CELLS; i++) {
        char command[256];
        /* 1, 2, 3 threads; the other order */
        snprintf(command, sizeof command,
                 "--db alone.db grpo one.json --threads %d --set experiment=law --set "
                 "optimizer.lr=%s",
                 i + 1, rates[N_CELLS - 1 - i]);
        Run r = run(command);
        if (r.code != 0) {
            print_error("%s\n", r.err);
        }
        assert_int_equal(r.code, 0);
        run_free(&r);
    }
    /* The experiment's name is in the stored config, as it should be: the same here. */
    assert_dump(reference, "alone.db");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed_at_random_moments_and_resumed_it_ends_in_the_same_bytes),
        cmocka_unit_test(one_cell_at_a_time_it_is_the_fused_sweep_and_threads_do_not_show),
    };
    return cmocka_run_group_tests(tests, make_reference, drop_reference);
}
