/* Several processes take the rows of one surface while they are killed at random moments: every row
 * is there once and whole, none that was reported as committed is lost, and a kill costs at most
 * the one row in flight. A process that slept through its lease commits nothing. */
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#include "core/random.h"
#include "tests/surface_test.h"

enum { ROWS = 400, STRIDE = 4, N_KILLS = 50 };

typedef struct {
    int committed[ROWS]; /* how often a process was told that its whole row is in */
    int claims;          /* begun: at most one a process is not counted */
} Reported;
static Reported *reported; /* shared by the processes */

static SurfaceInfo large_surface(void)
{
    SurfaceInfo info = surface_info;
    info.nx = ROWS;
    return info;
}

static void pause_ms(double ms)
{
    nanosleep(&(struct timespec){.tv_nsec = (long)(ms * 1e6)}, NULL);
}

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* A worker until nothing is left: exit code 0. Its work on a row takes some tenths of a ms. */
static int work(void)
{
    Store *store = NULL;
    Error told = {{0}};
    RunState state;
    int order[ROWS];
    SurfaceInfo info = large_surface();
    Worker here = worker_here();
    for (int i = 0; i < ROWS; i++) {
        order[i] = i;
    }
    Status status = store_open(&store, path, STORE_SHARED, 10000, &told);
    status = status ? status : store_experiment(store, "e", "{}", 1.0, &told);
    status = status ? status : store_surface(store, &info, 2.0, &state, &told);
    while (status == STATUS_OK) {
        SurfaceLease lease;
        SurfaceValue values[N_VALUES];
        bool kept = false;
        status = store_surface_claim(store, info.surface_id, &here, order, ROWS, STRIDE, now_s(),
                                     600.0, &lease, &told);
        if (status == STATUS_OK && lease.over) {
            break;
        }
        if (status == STATUS_OK && lease.i < 0) {
            pause_ms(2);
            continue;
        }
        __atomic_add_fetch(&reported->claims, 1, __ATOMIC_SEQ_CST);
        pause_ms(0.3);
        size_t n = row_values(values, lease.i, lease.preview ? 2 : 1);
        if (status == STATUS_OK && lease.i % 3 == 0) {
            status = store_surface_heartbeat(store, info.surface_id, &lease, now_s(), &kept, &told);
        }
        status = status ? status
                        : store_surface_commit(store, info.surface_id, &lease, values, n, now_s(),
                                               &kept, &told);
        if (status == STATUS_OK && kept && !lease.preview) {
            __atomic_add_fetch(&reported->committed[lease.i], 1, __ATOMIC_SEQ_CST);
        }
    }
    if (status != STATUS_OK) {
        fprintf(stderr, "%s\n", told.message);
        return 1;
    }
    store_close(store);
    return 0;
}

static pid_t start(void)
{
    pid_t child = fork();
    if (child == 0) {
        _exit(work());
    }
    return child;
}

static bool is_over(void)
{
    for (int i = 0; i < ROWS; i++) {
        if (!reported->committed[i]) {
            return false;
        }
    }
    return true;
}

static void verify(int n_kills)
{
    Store *store = NULL;
    bool sound = false;
    Text report = {0}, sql = {0};
    assert_ok(store_open(&store, path, STORE_READ, 0, error));
    assert_ok(store_check(store, &sound, &report, error));
    if (!sound) {
        fail_msg("%s", report.bytes);
    }
    assert_string_equal(ask(store, "SELECT count(*), min(state), max(state) FROM surface_row"),
                        "400,done,done\r\n");
    assert_string_equal(ask(store, "SELECT count(*), count(value) FROM surface_point"),
                        "4000,4000\r\n");
    assert_string_equal(ask(store, "SELECT count(*) FROM surface_preview p JOIN surface_point q "
                                   "USING (surface_id, i, j, metric) WHERE p.value = q.value AND "
                                   "p.x = q.x AND p.y = q.y"),
                        "606\r\n"); /* 101 rows, 3 of 5 points, 2 metrics */
    for (int i = 0; i < ROWS; i++) {
        SurfaceValue *values = NULL;
        size_t n = 0;
        assert_ok(store_surface_row(store, surface_info.surface_id, i, &values, &n, error));
        assert_int_equal(n, N_VALUES);
        for (size_t k = 0; k < n; k++) {
            int metric = values[k].metric[0] == 'a';
            assert_true(values[k].j == (int)k / 2 &&
                        values[k].value == surface_value(i, values[k].j, metric));
        }
        free(values);
        assert_in_range(reported->committed[i], 0, 1);
    }
    /* each claim was committed, as preview or as row, but for one a kill */
    text_printf(&sql,
                "SELECT sum(lease) - 501 BETWEEN 0 AND %d, sum(lease) - %d BETWEEN 0 AND %d "
                "FROM surface_row",
                n_kills, reported->claims, n_kills);
    assert_string_equal(ask(store, sql.bytes), "1,1\r\n");
    text_release(&sql);
    text_release(&report);
    store_close(store);
}

static void killed_processes_lose_at_most_a_row_each(void **state)
{
    enum { N = 3 };
    (void)state;
    const uint64_t seed = 20261120;
    print_message("seed %llu\n", (unsigned long long)seed);
    pid_t children[N];
    int n_kills = 0, code;
    for (int c = 0; c < N; c++) {
        children[c] = start();
    }
    for (uint32_t k = 0; k < N_KILLS; k++) {
        pause_ms(25.0 * random_uniform((RandomKey){seed, RANDOM_DATA}, k, 0, 0, 0));
        int c = (int)(k % N);
        kill(children[c], SIGKILL);
        assert_int_equal(waitpid(children[c], &code, 0), children[c]);
        bool ended = WIFEXITED(code);
        assert_true(ended ? WEXITSTATUS(code) == 0 && is_over() : WTERMSIG(code) == SIGKILL);
        n_kills += !ended;
        children[c] = start();
    }
    for (int c = 0; c < N; c++) {
        assert_int_equal(waitpid(children[c], &code, 0), children[c]);
        assert_int_equal(code, 0);
    }
    print_message("%d processes were killed at work\n", n_kills);
    verify(n_kills);
}

static void a_process_that_slept_through_its_lease_commits_nothing(void **state)
{
    (void)state;
    int ready[2], code;
    char byte = 0;
    SurfaceValue values[N_VALUES];
    SurfaceLease lease;
    bool kept = false;
    store_close(open_with_surface(STORE_SHARED));
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* it would sleep for ever where this test fails */
        Store *store = NULL;
        Error told = {{0}};
        Worker here = worker_here();
        Status status = store_open(&store, path, STORE_SHARED, 5000, &told);
        status = status ? status
                        : store_surface_claim(store, surface_info.surface_id, &here, in_order, NX,
                                              1, 1000.0, 60.0, &lease, &told);
        size_t n = row_values(values, lease.i, 1);
        values[0].value = 99.0;
        ssize_t written = write(ready[1], "r", 1);
        raise(SIGSTOP);
        status = status ? status
                        : store_surface_commit(store, surface_info.surface_id, &lease, values, n,
                                               1001.0, &kept, &told);
        store_close(store);
        _exit(status != STATUS_OK || written != 1 ? 1 : kept ? 2 : 7);
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    assert_int_equal(waitpid(child, &code, WUNTRACED), child);
    assert_true(WIFSTOPPED(code));

    Store *store = NULL;
    Worker here = worker_here();
    assert_ok(store_open(&store, path, STORE_SHARED, 5000, error));
    assert_ok(store_surface_claim(store, surface_info.surface_id, &here, in_order, NX, 1, 1059.0,
                                  60.0, &lease, error));
    assert_int_equal(lease.i, 1); /* it may yet wake up */
    assert_ok(store_surface_claim(store, surface_info.surface_id, &here, in_order, NX, 1, 1061.0,
                                  60.0, &lease, error));
    assert_true(lease.i == 0 && lease.lease == 2);
    kill(child, SIGCONT);
    assert_int_equal(waitpid(child, &code, 0), child);
    assert_int_equal(WEXITSTATUS(code), 7);
    size_t n = row_values(values, 0, 1);
    assert_ok(store_surface_commit(store, surface_info.surface_id, &lease, values, n, 1062.0, &kept,
                                   error));
    assert_true(kept);
    assert_string_equal(ask(store, "SELECT count(*), max(value) < 2 FROM surface_point"),
                        "10,1\r\n");
    store_close(store);
    close(ready[0]);
    close(ready[1]);
}

int main(void)
{
    reported =
        mmap(NULL, sizeof *reported, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (reported == MAP_FAILED) {
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(killed_processes_lose_at_most_a_row_each, make_folder,
                                        remove_folder),
        cmocka_unit_test_setup_teardown(a_process_that_slept_through_its_lease_commits_nothing,
                                        make_folder, remove_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
