/* A writer is killed with SIGKILL at random moments, again and again on one file: every committed
 * step is whole, none is doubled, none that was reported as committed is lost. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "core/random.h"
#include "results/query.h"
#include "results/store.h"

enum { N_KILLS = 50, N_METRICS = 5, N_COMPLETIONS = 16, CHECKPOINT_EVERY = 3 };

static char folder[64];
static char path[96];
static volatile int64_t *reported; /* shared: the last step that store_steps said is committed */

static const RunInfo info = {.run_id = "00aa11bb22cc33dd",
                             .experiment = "e",
                             .identity = "{}",
                             .config = "{}",
                             .model = "m",
                             .method = "grpo",
                             .adapter = "tinylora",
                             .budget = 13,
                             .lr = 1e-4,
                             .seed = 1,
                             .steps = 1000000};

static int write_step(Store *store, int64_t attempt, int64_t step)
{
    static const char *const keys[N_METRICS] = {"reward", "loss", "kl", "grad_norm", "entropy"};
    Metric metrics[N_METRICS];
    CompletionRow completions[N_COMPLETIONS];
    int32_t ids[40] = {0};
    double logprobs[40] = {0};
    char blob[2000], text[300];
    Error told = {{0}};
    memset(blob, (int)('a' + step % 26), sizeof blob);
    memset(text, 't', sizeof text);
    for (int i = 0; i < N_METRICS; i++) {
        metrics[i] = (Metric){keys[i], (double)(step * 10 + i)};
    }
    for (int i = 0; i < N_COMPLETIONS; i++) {
        completions[i] = (CompletionRow){.prompt = i / 4,
                                         .sample = i % 4,
                                         .prompt_text = "p",
                                         .text = text,
                                         .n_text = sizeof text,
                                         .ids = ids,
                                         .n_ids = 40,
                                         .logprobs = logprobs,
                                         .finish = "stop"};
    }
    StepRecord record = {.run_id = info.run_id,
                         .attempt = attempt,
                         .step = step,
                         .metrics = metrics,
                         .n_metrics = N_METRICS,
                         .completions = completions,
                         .n_completions = N_COMPLETIONS,
                         .checkpoint = step % CHECKPOINT_EVERY == 0 ? blob : NULL,
                         .checkpoint_bytes = sizeof blob,
                         .keep_checkpoints = 2,
                         .now_s = (double)step};
    return store_steps(store, &record, 1, &told) == STATUS_OK;
}

/* The child: goes on where the file stands, until it is killed. */
static int write_until_killed(void)
{
    Worker worker = {.host = "h", .pid = getpid(), .boot_id = "b", .environment = "{}"};
    Store *store = NULL;
    RunState state;
    Error told = {{0}};
    int64_t last, attempt, step, damaged;
    void *blob;
    size_t n;
    if (store_open(&store, path, STORE_WRITE, 5000, &told) != STATUS_OK ||
        store_experiment(store, "e", "{}", 1.0, &told) != STATUS_OK ||
        store_run(store, &info, 1.0, &state, &last, &told) != STATUS_OK ||
        store_attempt_begin(store, info.run_id, &worker, 1.0, 60.0, &attempt, &told) != STATUS_OK ||
        store_resume(store, info.run_id, 1.0, &step, &blob, &n, &damaged, &told) != STATUS_OK) {
        fprintf(stderr, "%s\n", told.message);
        return 1;
    }
    free(blob);
    for (step++; write_step(store, attempt, step); step++) {
        *reported = step;
    }
    return 2;
}

static void expect(Store *store, const char *sql, const char *expected)
{
    Error told = {{0}};
    Text out = {0};
    if (query_run(store, sql, NULL, 0, FORMAT_CSV, &out, &told) != STATUS_OK) {
        fail_msg("%s: %s", sql, told.message);
    }
    if (strcmp(strchr(out.bytes, '\n') + 1, expected) != 0) {
        fail_msg("%s: %s", sql, out.bytes);
    }
    text_release(&out);
}

static void verify(void)
{
    Store *store = NULL;
    Error told = {{0}};
    bool sound = false;
    Text report = {0};
    if (access(path, F_OK) !=
        0) { /* killed before the file was made: it appears whole or not at all */
        return;
    }
    if (store_open(&store, path, STORE_READ, 0, &told) != STATUS_OK) {
        fail_msg("%s", told.message);
    }
    assert_int_equal(store_check(store, &sound, &report, &told), STATUS_OK);
    if (!sound) {
        fail_msg("%s", report.bytes);
    }
    text_release(&report);
    /* steps 0 .. last_step, each with all of its rows */
    expect(store,
           "SELECT count(*) FROM (SELECT step FROM metric GROUP BY step HAVING count(*) <> 5 OR "
           "sum(value - step * 10) <> 10)",
           "0\r\n");
    expect(store,
           "SELECT count(*) FROM (SELECT step FROM completion GROUP BY step HAVING count(*) <> 16)",
           "0\r\n");
    expect(
        store,
        "SELECT (SELECT coalesce(max(last_step), -1) + 1 FROM run) = (SELECT count(DISTINCT step) "
        "FROM metric), (SELECT count(DISTINCT step) FROM metric) = (SELECT count(DISTINCT step) "
        "FROM completion)",
        "1,1\r\n");
    expect(store,
           "SELECT coalesce(max(c.step) = r.last_step / 3 * 3 AND count(*) <= 2, r.last_step = -1) "
           "FROM run r LEFT JOIN checkpoint c USING (run_id) GROUP BY r.run_id UNION ALL SELECT 1 "
           "LIMIT 1",
           "1\r\n");
    Text sql = {0};
    text_printf(&sql, "SELECT coalesce((SELECT last_step FROM run), -1) >= %lld",
                (long long)*reported);
    expect(store, sql.bytes, "1\r\n");
    text_release(&sql);
    store_close(store);
}

static void a_killed_writer_leaves_whole_steps(void **state)
{
    (void)state;
    const uint64_t seed = 20260131;
    print_message("seed %llu\n", (unsigned long long)seed);
    snprintf(folder, sizeof folder, "/tmp/tinylora-kill-XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/results.db", folder);
    reported = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(reported, MAP_FAILED);
    int64_t n_steps = 0;
    /* a busy machine takes more kills to come as far */
    for (uint32_t k = 0; k < N_KILLS || (n_steps <= N_KILLS && k < 20 * N_KILLS); k++) {
        *reported = -1;
        pid_t child = fork();
        if (child == 0) {
            _exit(write_until_killed());
        }
        /* from before the file exists to some steps later */
        double ms = 60.0 * random_uniform((RandomKey){seed, RANDOM_DATA}, k, 0, 0, 0);
        nanosleep(&(struct timespec){.tv_nsec = (long)(ms * 1e6)}, NULL);
        kill(child, SIGKILL);
        int code = 0;
        waitpid(child, &code, 0);
        assert_true(WIFSIGNALED(code) && WTERMSIG(code) == SIGKILL);
        verify();
        n_steps = *reported > n_steps ? *reported : n_steps;
    }
    print_message("%lld steps\n", (long long)n_steps);
    assert_true(n_steps > N_KILLS);
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_killed_writer_leaves_whole_steps)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
