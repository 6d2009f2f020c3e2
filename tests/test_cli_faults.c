/* A disk that fails: each flush, write and shortening of results.db once, and a disk that is full.
 * The program says it in one line and ends with 1, the file stays sound, and with the disk well
 * again the same command ends in the rows of an undisturbed one. $TINYLORA_FAULTS=all tries every
 * single call, else a sample of the writes. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "tests/cli_dump.h"

#define CONFIG                                                                                     \
    "{\"experiment\": \"faults\", \"model\": \"abacus\", \"adapter\": {\"budget\": 13},\n"         \
    " \"data\": {\"train\": \"" TRAIN "\", \"dev\": \"" SOURCE_DIR                                 \
    "/models/abacus/dev.jsonl\"}, \"eval\": {\"every\": 2, \"rows\": 2},\n"                        \
    " \"grpo\": {\"prompts_per_step\": 1, \"group_size\": 2, \"max_new_tokens\": 4},\n"            \
    " \"steps\": 3}"

static char *reference;

static int make_reference(void **state)
{
    if (run_setup(state)) {
        return 1;
    }
    run_write("faults.json", CONFIG);
    expect_ok("--db whole.db grpo faults.json --threads 1");
    reference = dump_runs("whole.db");
    return 0;
}

static int drop_reference(void **state)
{
    free(reference);
    umount("small");
    return run_teardown(state);
}

static Run run_with_fault(const char *kind, long at, int code)
{
    char prefix[600];
    snprintf(prefix, sizeof prefix,
             "export FAULT_NAME=fault.db FAULT_KIND=%s FAULT_AT=%ld FAULT_ERROR=%d "
             "FAULT_COUNT=count ASAN_OPTIONS=verify_asan_link_order=0 LD_PRELOAD='" BUILD_DIR
             "/libfault_shim.so';",
             kind, at, code);
    return run_wait(run_start(prefix, "--db fault.db grpo faults.json --threads 1"));
}

/* How many lines of stderr are the program's complaint. */
static int complaints(const char *err)
{
    int n = 0;
    for (const char *at = err; (at = strstr(at, "tinylora: ")); at++) {
        n++;
    }
    return n;
}

static void fail_once(const char *kind, long at, int code, int *n_failed)
{
    forget("fault.db");
    Run r = run_with_fault(kind, at, code);
    if (r.code != 0 && (r.code != 1 || complaints(r.err) != 1)) {
        fail_msg("%s %ld: exit code %d: %s", kind, at, r.code, r.err);
    }
    *n_failed += r.code == 1;
    run_free(&r);
    if (access("fault.db", F_OK) == 0) { /* made whole or not at all */
        expect_ok("--db fault.db db check");
    }
    expect_ok("--db fault.db grpo faults.json --threads 1");
    assert_dump(reference, "fault.db");
}

static void each_call_fails_once(const char *kind, int code, int most)
{
    const char *wanted = getenv("TINYLORA_FAULTS");
    bool all = wanted && strcmp(wanted, "all") == 0;
    forget("fault.db");
    Run r = run_with_fault(kind, 0, code);
    assert_int_equal(r.code, 0);
    run_free(&r);
    char *count = run_slurp("count");
    long n = atol(count), n_tried = 0;
    free(count);
    assert_true(n > 3);
    long stride = all || n <= most ? 1 : (n + most - 1) / most;
    int n_failed = 0;
    for (long at = 1; at <= n; at += stride, n_tried++) {
        fail_once(kind, at, code, &n_failed);
    }
    assert_true(n_failed > 0);
    print_message("%s: %ld of %ld calls failed once, %d of them ended the program\n", kind, n_tried,
                  n, n_failed);
}

static void each_flush_fails_once(void **state)
{
    (void)state;
    each_call_fails_once("sync", EIO, 40);
}

static void writes_fail_once(void **state)
{
    (void)state;
    each_call_fails_once("write", EIO, 12);
}

static void writes_find_the_disk_full_once(void **state)
{
    (void)state;
    each_call_fails_once("write", ENOSPC, 8);
}

static void a_full_disk_loses_the_step_in_flight_alone(void **state)
{
    (void)state;
    mkdir("small", 0700);
    if (mount("tmpfs", "small", "tmpfs", 0, "size=100k") != 0) {
        print_message("no mount here: skipped\n");
        skip();
    }
    int n_full = 0;
    for (int size = 100; size < 2000; size += 60) { /* a little more each time */
        char options[32];
        snprintf(options, sizeof options, "size=%dk", size);
        assert_int_equal(mount("tmpfs", "small", "tmpfs", MS_REMOUNT, options), 0);
        Run r = run("--db small/results.db grpo faults.json --threads 1");
        if (r.code == 1) {
            assert_int_equal(complaints(r.err), 1);
            assert_true(strstr(r.err, "disk is full") || strstr(r.err, "input/output error"));
            n_full++;
        } else {
            assert_int_equal(r.code, 0);
        }
        bool ended = r.code == 0;
        run_free(&r);
        if (ended) {
            break;
        }
    }
    assert_true(n_full > 0);
    assert_dump(reference, "small/results.db");
    expect_ok("--db small/results.db db check");
    assert_int_equal(umount("small"), 0);
    print_message("%d times full\n", n_full);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_flush_fails_once),
        cmocka_unit_test(writes_fail_once),
        cmocka_unit_test(writes_find_the_disk_full_once),
        cmocka_unit_test(a_full_disk_loses_the_step_in_flight_alone),
    };
    return cmocka_run_group_tests(tests, make_reference, drop_reference);
}
