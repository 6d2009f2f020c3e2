/* The store: creating, refusing, committing, resuming, one writer. */
#define _GNU_SOURCE
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#include "results/query.h"
#include "results/schema.h"
#include "results/store.h"

static char folder[64];
static char path[96];

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/tinylora-store-XXXXXX");
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/results.db", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    char command[200];
    snprintf(command, sizeof command, "umount -q %s/small 2>/dev/null; rm -rf %s", folder, folder);
    return system(command);
}

#define assert_ok(call)                                                                            \
    do {                                                                                           \
        Error e_ = {{0}};                                                                          \
        Error *error = &e_;                                                                        \
        Status s_ = (call);                                                                        \
        if (s_ != STATUS_OK) {                                                                     \
            print_error("%s: %s\n", #call, e_.message);                                            \
        }                                                                                          \
        assert_int_equal(s_, STATUS_OK);                                                           \
    } while (0)

static void assert_says(const Error *error, const char *words)
{
    if (!strstr(error->message, words)) {
        fail_msg("\"%s\" lacks \"%s\"", error->message, words);
    }
}

/* The answer of a query as CSV without header; static buffer. */
static const char *ask(Store *store, const char *sql)
{
    static Text out;
    Error told = {{0}};
    text_clear(&out);
    if (query_run(store, sql, NULL, 0, FORMAT_CSV, &out, &told) != STATUS_OK) {
        fail_msg("%s: %s", sql, told.message);
    }
    return strstr(text_string(&out), "\r\n") + 2;
}

static const Param params[] = {{"optimizer.lr", "0.0002"}, {"method", "\"grpo\""}};
static const RunInfo info = {.run_id = "00aa11bb22cc33dd",
                             .experiment = "e",
                             .identity = "{\"a\":1}",
                             .config = "{}",
                             .model = "abacus",
                             .method = "grpo",
                             .adapter = "tinylora",
                             .budget = 13,
                             .lr = 2e-4,
                             .seed = 7,
                             .steps = 100,
                             .params = params,
                             .n_params = 2};
static const Worker worker = {
    .host = "h1", .pid = 11, .boot_id = "boot-1", .environment = "{\"threads\":2}"};

static Store *open_with_run(int64_t *attempt)
{
    Store *store = NULL;
    RunState state;
    int64_t last;
    assert_ok(store_open(&store, path, STORE_WRITE, 0, error));
    assert_ok(store_experiment(store, "e", "{}", 1.0, error));
    assert_ok(store_run(store, &info, 2.0, &state, &last, error));
    assert_ok(store_attempt_begin(store, info.run_id, &worker, 3.0, 60.0, attempt, error));
    return store;
}

static const double logprobs[] = {-0.31, -1.27, -2.385};
static const int32_t ids[] = {5, 70000, 2};

static CompletionRow completion_at(int prompt, int sample)
{
    return (CompletionRow){.prompt_row = 3,
                           .prompt = prompt,
                           .sample = sample,
                           .prompt_text = "1+1?",
                           .text = "\xc3" /* half a character */,
                           .n_text = 1,
                           .ids = ids,
                           .n_ids = 3,
                           .logprobs = logprobs,
                           .reward = 1.0,
                           .advantage = 0.5,
                           .extracted = "{\"strict\":\"2\"}",
                           .finish = "stop"};
}

static StepRecord record_at(int64_t attempt, int64_t step, const Metric *metrics, size_t n_metrics,
                            const CompletionRow *completions, size_t n_completions,
                            const void *checkpoint, size_t n_bytes)
{
    return (StepRecord){.run_id = info.run_id,
                        .attempt = attempt,
                        .step = step,
                        .metrics = metrics,
                        .n_metrics = n_metrics,
                        .completions = completions,
                        .n_completions = n_completions,
                        .checkpoint = checkpoint,
                        .checkpoint_bytes = n_bytes,
                        .now_s = 10.0 + (double)step};
}

static void a_new_store_has_its_schema_and_is_in_wal_mode(void **state)
{
    (void)state;
    Store *store = NULL;
    assert_ok(store_open(&store, path, STORE_WRITE, 0, error));
    assert_string_equal(ask(store, "PRAGMA application_id"), "1953264177\r\n");
    assert_string_equal(ask(store, "PRAGMA user_version"), "2\r\n");
    assert_string_equal(ask(store, "PRAGMA journal_mode"), "wal\r\n"); /* /tmp is a local disk */
    assert_string_equal(ask(store, "PRAGMA synchronous"), "2\r\n");
    assert_string_equal(
        ask(store, "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND sql NOT LIKE "
                   "'%STRICT%' AND name NOT LIKE 'sqlite_%'"),
        "0\r\n");
    bool sound = false;
    Text report = {0};
    assert_ok(store_check(store, &sound, &report, error));
    assert_true(sound);
    assert_non_null(strstr(report.bytes, "journal: wal on a local file system"));
    assert_non_null(strstr(report.bytes, "integrity: ok"));
    text_release(&report);
    store_close(store);
}

static void a_run_is_stored_once_and_keeps_its_state(void **state)
{
    (void)state;
    int64_t attempt, last = 5;
    RunState run_state;
    Store *store = open_with_run(&attempt);
    assert_int_equal(attempt, 1);
    assert_ok(store_run(store, &info, 9.0, &run_state, &last, error));
    assert_int_equal(run_state, RUN_RUNNING);
    assert_int_equal(last, -1);
    assert_string_equal(ask(store, "SELECT count(*) FROM run"), "1\r\n");
    assert_string_equal(ask(store, "SELECT count(*) FROM param"), "2\r\n");

    /* another experiment that wants the same cell shares it */
    RunInfo other = info;
    other.experiment = "f";
    assert_ok(store_experiment(store, "f", "{}", 1.0, error));
    assert_ok(store_run(store, &other, 9.0, &run_state, &last, error));
    assert_string_equal(ask(store, "SELECT experiment, run_id FROM run_list ORDER BY 1"),
                        "e,00aa11bb22cc33dd\r\nf,00aa11bb22cc33dd\r\n");

    Error told = {{0}};
    other.identity = "{\"a\":2}";
    assert_int_equal(store_run(store, &other, 9.0, &run_state, &last, &told), STATUS_FAILED);
    assert_says(&told, "run 00aa11bb22cc33dd is there with another identity");
    store_close(store);
}

static void a_step_is_whole_and_comes_once(void **state)
{
    (void)state;
    int64_t attempt, last;
    RunState run_state;
    Store *store = open_with_run(&attempt);
    Metric metrics[] = {{"reward", 0.1}, {"loss", NAN}, {"grad_norm", INFINITY}};
    CompletionRow completions[] = {completion_at(0, 0), completion_at(0, 1)};
    EventRow event = {"note", "hello"};
    StepRecord record = record_at(attempt, 1, metrics, 3, completions, 2, "state-1", 7);
    record.events = &event;
    record.n_events = 1;
    assert_ok(store_steps(store, &record, 1, error));
    assert_string_equal(ask(store, "SELECT key, value FROM metric ORDER BY key"),
                        "grad_norm,\r\nloss,\r\nreward,0.10000000000000001\r\n");
    assert_string_equal(ask(store, "SELECT kind, message FROM event ORDER BY event_id"),
                        "nonfinite,loss is not a number\r\nnonfinite,grad_norm is infinite\r\n"
                        "note,hello\r\n");
    assert_string_equal(ask(store, "SELECT hex(text), hex(ids), length(logprobs) FROM completion "
                                   "WHERE sample = 1"),
                        "C3,050000007011010002000000,24\r\n");
    assert_string_equal(ask(store, "SELECT from_step, to_step, heartbeat_at FROM attempt"),
                        "-1,1,11\r\n");
    assert_ok(store_run(store, &info, 9.0, &run_state, &last, error));
    assert_int_equal(last, 1);

    Error told = {{0}};
    assert_int_equal(store_steps(store, &record, 1, &told), STATUS_FAILED);
    assert_says(&told, "run 00aa11bb22cc33dd, step 1: ");
    assert_says(&told, "the step is already committed");

    /* the second of two records breaks a rule: the first is not stored either */
    StepRecord two[] = {record_at(attempt, 2, metrics, 1, NULL, 0, "state-2", 7),
                        record_at(attempt, 3, metrics, 1, NULL, 0, "state-3", 7)};
    CompletionRow doubled[] = {completion_at(0, 0), completion_at(0, 0)};
    two[1].completions = doubled;
    two[1].n_completions = 2;
    assert_int_equal(store_steps(store, two, 2, &told), STATUS_FAILED);
    assert_says(&told, "step 3");
    assert_says(&told, "UNIQUE");
    assert_string_equal(ask(store, "SELECT max(step) FROM metric"), "1\r\n");
    assert_string_equal(ask(store, "SELECT last_step FROM run"), "1\r\n");

    two[0].attempt = 99;
    assert_int_equal(store_steps(store, two, 1, &told), STATUS_FAILED);
    assert_says(&told, "there is no attempt 99");
    store_close(store);
}

static void resuming_drops_what_is_later_than_the_checkpoint(void **state)
{
    (void)state;
    int64_t attempt, step = 9, again;
    Store *store = open_with_run(&attempt);
    void *blob = NULL;
    size_t n = 0;
    assert_ok(store_checkpoint(store, info.run_id, false, &step, &blob, &n, error));
    assert_int_equal(step, -1);
    assert_null(blob);

    Metric metric = {"reward", 0.25};
    EventRow event = {"note", "x"};
    for (int k = 0; k < 6; k++) {
        char bytes[24];
        snprintf(bytes, sizeof bytes, "state%d", k);
        bool keeps = k % 2 == 0; /* 0, 2, 4 */
        CompletionRow completion = completion_at(0, 0);
        StepRecord record =
            record_at(attempt, k, &metric, 1, &completion, 1, keeps ? bytes : NULL, 6);
        record.keep_checkpoints = 2;
        record.events = &event;
        record.n_events = 1;
        assert_ok(store_steps(store, &record, 1, error));
    }
    assert_string_equal(ask(store, "SELECT group_concat(step) FROM checkpoint"), "\"2,4\"\r\n");
    Evaluation evaluations[] = {
        {.run_id = info.run_id, .step = 4, .task = "dev", .extractor = "flexible", .n = 2},
        {.run_id = info.run_id, .step = 5, .task = "dev", .extractor = "flexible", .n = 2}};
    EvalSample sample = {.text = "a", .n_text = 1, .answer = "2", .extractor = "flexible"};
    assert_ok(store_evaluations(store, evaluations, 1, &sample, 1, 1.0, error));
    assert_ok(store_evaluations(store, evaluations + 1, 1, &sample, 1, 1.0, error));
    store_close(store);

    assert_ok(store_open(&store, path, STORE_WRITE, 0, error));
    assert_ok(store_attempt_begin(store, info.run_id, &worker, 30.0, 60.0, &again, error));
    assert_int_equal(again, 2);
    assert_ok(store_checkpoint(store, info.run_id, true, &step, &blob, &n, error));
    assert_int_equal(step, 4);
    assert_int_equal(n, 6);
    assert_memory_equal(blob, "state4", 6);
    free(blob);
    assert_string_equal(
        ask(store, "SELECT (SELECT max(step) FROM metric), (SELECT max(step) FROM completion), "
                   "(SELECT max(step) FROM event), (SELECT max(step) FROM evaluation), "
                   "(SELECT max(step) FROM eval_sample), (SELECT max(step) FROM eval_completion), "
                   "(SELECT count(*) FROM eval_verdict), (SELECT last_step FROM run)"),
        "4,4,4,4,4,4,1,4\r\n");
    assert_string_equal(ask(store, "SELECT n, how FROM attempt"), "1,lost\r\n2,\r\n");
    assert_ok(store_checkpoint_at(store, info.run_id, 2, &blob, &n, error));
    assert_memory_equal(blob, "state2", 6);
    free(blob);
    Error told = {{0}};
    assert_int_equal(store_checkpoint_at(store, info.run_id, 3, &blob, &n, &told), STATUS_FAILED);
    assert_says(&told, "no checkpoint of step 3");

    assert_ok(store_attempt_end(store, info.run_id, again, "stopped", 40.0, error));
    assert_string_equal(ask(store, "SELECT state FROM run"), "waiting\r\n");
    assert_ok(store_run_end(store, info.run_id, RUN_FAILED, "loss is NaN", NAN, NAN, 41.0, error));
    assert_string_equal(ask(store, "SELECT state, reason, objective FROM run"),
                        "failed,loss is NaN,\r\n");
    store_close(store);
}

static void a_live_worker_elsewhere_is_respected_until_its_heartbeat_is_old(void **state)
{
    (void)state;
    int64_t attempt;
    Store *store = open_with_run(&attempt); /* h1, heartbeat at 3 */
    Worker other = {.host = "h2", .pid = 12, .boot_id = "boot-2", .environment = "{}"};
    Error told = {{0}};
    assert_int_equal(store_attempt_begin(store, info.run_id, &other, 50.0, 60.0, &attempt, &told),
                     STATUS_FAILED);
    assert_says(&told, "process 11 on h1 works on it (last seen 47 s ago)");
    assert_int_equal(attempt, 1);
    assert_ok(store_attempt_begin(store, info.run_id, &other, 64.0, 60.0, &attempt, error));
    assert_int_equal(attempt, 2);
    /* same host after a reboot: nobody can be alive */
    other.boot_id = "boot-3";
    assert_ok(store_attempt_begin(store, info.run_id, &other, 65.0, 60.0, &attempt, error));
    assert_int_equal(attempt, 3);
    /* another container of this machine: the writer's lock is ours, so the one before is dead */
    other.host = "container-2";
    assert_ok(store_attempt_begin(store, info.run_id, &other, 66.0, 60.0, &attempt, error));
    assert_int_equal(attempt, 4);
    assert_int_equal(store_attempt_begin(store, "nope", &other, 65.0, 60.0, &attempt, &told),
                     STATUS_FAILED);
    assert_says(&told, "there is no run nope");
    store_close(store);
}

static void a_second_writer_is_refused_and_readers_are_not(void **state)
{
    (void)state;
    int64_t attempt;
    Store *store = open_with_run(&attempt), *second = NULL, *reader = NULL;
    Error told = {{0}};
    assert_int_equal(store_open(&second, path, STORE_WRITE, 50, &told), STATUS_FAILED);
    char holder[64];
    snprintf(holder, sizeof holder, "another process writes to it (pid %ld on ", (long)getpid());
    assert_says(&told, holder);

    /* a link to the file is the same file */
    char link_path[96];
    snprintf(link_path, sizeof link_path, "%s/link.db", folder);
    assert_int_equal(symlink(path, link_path), 0);
    assert_int_equal(store_open(&second, link_path, STORE_WRITE, 0, &told), STATUS_FAILED);

    assert_ok(store_open(&reader, path, STORE_READ, 0, error));
    assert_string_equal(ask(reader, "SELECT count(*) FROM run"), "1\r\n");
    Metric metric = {"reward", 0.25};
    StepRecord record = record_at(attempt, 1, &metric, 1, NULL, 0, NULL, 0);
    assert_ok(store_steps(store, &record, 1, error));
    assert_string_equal(ask(reader, "SELECT count(*) FROM metric"), "1\r\n");
    assert_int_equal(store_event(reader, NULL, -1, "a", "b", 1.0, &told), STATUS_FAILED);
    assert_says(&told, "readonly");
    store_close(store);
    assert_ok(store_open(&second, path, STORE_WRITE, 0, error));
    store_close(second);
    store_close(reader);
}

static void write_file(const char *bytes, size_t n)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, n, file), n);
    fclose(file);
}

static void refused(const char *words)
{
    for (int mode = STORE_READ; mode <= STORE_WRITE; mode++) {
        Store *store = NULL;
        Error told = {{0}};
        assert_int_equal(store_open(&store, path, (StoreMode)mode, 0, &told), STATUS_REFUSED);
        assert_says(&told, words);
        assert_says(&told, path);
        assert_null(store);
    }
}

static void execute(const char *sql)
{
    Database *database = NULL;
    assert_ok(database_open(&database, path, DATABASE_CREATE, error));
    assert_ok(database_execute(database, sql, error));
    database_close(database);
}

static void files_that_are_not_ours_are_refused(void **state)
{
    (void)state;
    write_file("", 0);
    refused("the file is empty (0 bytes)");
    char noise[8192];
    memset(noise, 'x', sizeof noise);
    write_file(noise, sizeof noise);
    refused("not an SQLite database");
    write_file(noise, 10);
    refused("not an SQLite database");
    unlink(path);
    execute("CREATE TABLE t (a)");
    refused("not a results.db (application_id 0x00000000, expected 0x746c7231)");
    execute("PRAGMA application_id = 1953264177");
    refused("schema version 0 never existed");
    execute("PRAGMA user_version = 1");
    refused("not a results.db (0 of its 23 tables and views)");
    execute("PRAGMA user_version = 2");
    refused("not a results.db (0 of its 29 tables and views)");
    execute("PRAGMA user_version = 3");
    refused("schema version 3 is newer than this program's 2");
    execute("PRAGMA user_version = -5");
    refused("schema version -5 never existed");
}

static void a_missing_file_is_told_and_an_orphaned_wal_is_not_replayed(void **state)
{
    (void)state;
    Store *store = NULL;
    Error told = {{0}};
    assert_int_equal(store_open(&store, path, STORE_READ, 0, &told), STATUS_FAILED);
    assert_says(&told, "no such file; the first run creates it");
    char wal[128];
    snprintf(wal, sizeof wal, "%s-wal", path);
    FILE *file = fopen(wal, "wb");
    fputs("old frames", file);
    fclose(file);
    assert_int_equal(store_open(&store, path, STORE_WRITE, 0, &told), STATUS_REFUSED);
    assert_says(&told, "its \"-wal\" file, which may hold results, is still there");
    assert_int_equal(store_open(&store, "/no/such/folder/x.db", STORE_WRITE, 0, &told),
                     STATUS_FAILED);
    assert_says(&told, "\"/no/such/folder/x.db\": No such file or directory");
}

static void damage_is_noticed(void **state)
{
    (void)state;
    int64_t attempt;
    Store *store = open_with_run(&attempt);
    static char blob[20000];
    memset(blob, 'q', sizeof blob);
    StepRecord record = record_at(attempt, 1, NULL, 0, NULL, 0, blob, sizeof blob);
    assert_ok(store_steps(store, &record, 1, error));
    store_close(store);
    struct stat info_before;
    assert_int_equal(stat(path, &info_before), 0);

    /* one byte inside the checkpoint: only its checksum can tell */
    FILE *file = fopen(path, "r+b");
    static char bytes[1 << 20];
    size_t n = fread(bytes, 1, sizeof bytes, file);
    char *found = memmem(bytes, n, "qqqqqqqqqqqqqqqq", 16);
    assert_non_null(found);
    fseek(file, found - bytes + 100, SEEK_SET);
    fputc('r', file);
    fclose(file);
    assert_ok(store_open(&store, path, STORE_READ, 0, error));
    int64_t step;
    void *checkpoint;
    size_t n_bytes;
    Error told = {{0}};
    assert_int_equal(
        store_checkpoint(store, info.run_id, false, &step, &checkpoint, &n_bytes, &told),
        STATUS_REFUSED);
    assert_says(&told, "the checkpoint of step 1 does not match its checksum");
    bool sound = true;
    Text report = {0};
    assert_ok(store_check(store, &sound, &report, error));
    assert_false(sound);
    assert_non_null(
        strstr(report.bytes, "checkpoint of run 00aa11bb22cc33dd step 1: checksum differs"));
    store_close(store);

    /* pages overwritten */
    file = fopen(path, "r+b");
    fseek(file, 8192, SEEK_SET);
    for (int i = 0; i < 3 * 4096; i++) {
        fputc(0xa5, file);
    }
    fclose(file);
    Status status = store_open(&store, path, STORE_READ, 0, &told);
    if (status == STATUS_OK) {
        text_clear(&report);
        assert_ok(store_check(store, &sound, &report, error));
        assert_false(sound);
        store_close(store);
    } else {
        assert_int_equal(status, STATUS_REFUSED);
    }
    text_release(&report);

    /* cut in the middle */
    assert_int_equal(truncate(path, info_before.st_size / 2 / 4096 * 4096), 0);
    refused("the database is damaged");
}

/* In a child: fill the store until it fails; the exit code tells which rule broke. */
static int fill_until_full(const char *where)
{
    Store *store = NULL;
    RunState run_state;
    int64_t last, attempt;
    Error told = {{0}};
    if (store_open(&store, where, STORE_WRITE, 0, &told) != STATUS_OK ||
        store_experiment(store, "e", "{}", 1.0, &told) != STATUS_OK ||
        store_run(store, &info, 2.0, &run_state, &last, &told) != STATUS_OK ||
        store_attempt_begin(store, info.run_id, &worker, 3.0, 60.0, &attempt, &told) != STATUS_OK) {
        return 2;
    }
    static char blob[30000];
    Metric metric = {"reward", 0.25};
    for (int step = 0; step < 1000; step++) {
        memset(blob, 'a' + step % 26, sizeof blob);
        StepRecord record = record_at(attempt, step, &metric, 1, NULL, 0, blob, sizeof blob);
        Status status = store_steps(store, &record, 1, &told);
        if (status != STATUS_OK) {
            bool full = strstr(told.message, "the disk is full"),
                 broken = strstr(told.message, "input/output error (");
            /* after a failed write nothing is known of the file */
            bool refused = broken && store_steps(store, &record, 1, &told) == STATUS_FAILED &&
                           strstr(told.message, "nothing more is written");
            store_close(store);
            return status == STATUS_FAILED && step > 0 && (full || (broken && refused)) ? 0 : 3;
        }
    }
    return 4;
}

static void check_after_full(const char *where)
{
    Store *store = NULL;
    bool sound = false;
    Text report = {0};
    assert_ok(store_open(&store, where, STORE_READ, 0, error));
    assert_ok(store_check(store, &sound, &report, error));
    assert_true(sound);
    text_release(&report);
    assert_string_equal(ask(store, "SELECT count(*) = max(last_step) + 1, (SELECT count(*) FROM "
                                   "checkpoint) = max(last_step) + 1 FROM run JOIN metric USING "
                                   "(run_id)"),
                        "1,1\r\n");
    store_close(store);
}

static void a_full_disk_loses_only_the_step_in_flight(void **state)
{
    (void)state;
    char mount_point[96], where[128];
    snprintf(mount_point, sizeof mount_point, "%s/small", folder);
    snprintf(where, sizeof where, "%s/results.db", mount_point);
    assert_int_equal(mkdir(mount_point, 0755), 0);
    if (mount("tmpfs", mount_point, "tmpfs", 0, "size=1m") != 0) {
        print_message("may not mount a small file system: skipped\n");
        skip();
    }
    pid_t child = fork();
    if (child == 0) {
        _exit(fill_until_full(where));
    }
    int code = 0;
    waitpid(child, &code, 0);
    int result = WIFEXITED(code) ? WEXITSTATUS(code) : 99;
    if (result == 0) {
        check_after_full(where);
    }
    umount(mount_point);
    assert_int_equal(result, 0);
}

static void a_file_size_limit_loses_only_the_step_in_flight(void **state)
{
    (void)state;
    pid_t child = fork();
    if (child == 0) {
        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &(struct rlimit){600000, 600000});
        _exit(fill_until_full(path));
    }
    int code = 0;
    waitpid(child, &code, 0);
    assert_int_equal(code, 0);
    check_after_full(path);
}

static void a_database_that_nobody_may_write_can_be_read(void **state)
{
    (void)state;
    if (geteuid() != 0) {
        print_message("needs to give up root: skipped\n");
        skip();
    }
    int64_t attempt;
    store_close(open_with_run(&attempt));
    assert_int_equal(chmod(folder, 0755), 0);
    assert_int_equal(chmod(path, 0444), 0);
    pid_t child = fork();
    if (child == 0) {
        Store *store = NULL;
        Error told = {{0}};
        if (setuid(65534) != 0) {
            _exit(2);
        }
        Status status = store_open(&store, path, STORE_READ, 0, &told);
        if (status != STATUS_OK) {
            print_error("%s\n", told.message);
            _exit(3);
        }
        int code = strcmp(ask(store, "SELECT count(*) FROM run"), "1\r\n") == 0 ? 0 : 4;
        store_close(store);
        _exit(code);
    }
    int code = 0;
    waitpid(child, &code, 0);
    assert_int_equal(code, 0);
}

static void the_base_stands_among_the_best_runs(void **state)
{
    (void)state;
    int64_t attempt;
    Store *store = open_with_run(&attempt);
    const char *base = "base:0123456789abcdef:77";
    Evaluation bases[] = {{.run_id = base,
                           .task = "test",
                           .extractor = "flexible",
                           .n = 4,
                           .value = 0.35,
                           .standard_error = 0.1,
                           .base_value = NAN,
                           .p_value = NAN,
                           .model = "abacus"},
                          {.run_id = base,
                           .task = "test",
                           .extractor = "strict",
                           .n = 4,
                           .value = 0.25,
                           .base_value = NAN,
                           .p_value = NAN}};
    EvalSample samples[] = {
        {.row = 1,
         .text = "b",
         .n_text = 1,
         .answer = "2",
         .extractor = "flexible",
         .correct = true,
         .score = 1},
        {.row = 0, .text = "a", .n_text = 1, .answer = "2", .extractor = "flexible"},
        {.row = 0, .text = "a", .n_text = 1, .answer = "2", .extractor = "strict"}};
    assert_ok(store_evaluations(store, bases, 2, samples, 3, 5.0, error));
    Evaluation runs[] = {{.run_id = info.run_id,
                          .step = 50,
                          .task = "test",
                          .extractor = "flexible",
                          .n = 4,
                          .value = 0.9,
                          .base_value = 0.35,
                          .p_value = 0.5},
                         {.run_id = info.run_id,
                          .step = 100,
                          .task = "test",
                          .extractor = "flexible",
                          .n = 4,
                          .value = 0.6,
                          .base_value = 0.35,
                          .p_value = 0.004},
                         {.run_id = info.run_id,
                          .step = 100,
                          .task = "test",
                          .extractor = "strict",
                          .n = 4,
                          .value = 0.125,
                          .base_value = 0.25,
                          .p_value = NAN}};
    assert_ok(store_evaluations(store, runs, 3, NULL, 0, 6.0, error));
    assert_ok(store_evaluations(store, runs, 3, NULL, 0, 7.0, error)); /* replaces */
    assert_string_equal(
        ask(store,
            "SELECT experiment, extractor, place, kind, run_id, step, round(gain, 6), p_value "
            "FROM best_runs"),
        "e,flexible,1,run,00aa11bb22cc33dd,100,0.25,0.0040000000000000001\r\n"
        "e,flexible,2,base,base:0123456789abcdef:77,0,,\r\n"
        "e,strict,1,base,base:0123456789abcdef:77,0,,\r\n"
        "e,strict,2,run,00aa11bb22cc33dd,100,-0.125,\r\n");

    bool found = false;
    Evaluation numbers;
    assert_ok(store_has_evaluation(store, base, 0, "test", "strict", &found, &numbers, error));
    assert_true(found);
    assert_true(numbers.value == 0.25 && isnan(numbers.p_value) && numbers.n == 4);
    assert_ok(store_has_evaluation(store, base, 1, "test", "strict", &found, NULL, error));
    assert_false(found);
    uint8_t *correct = NULL;
    size_t n = 0;
    assert_ok(store_eval_verdicts(store, base, 0, "test", "flexible", &correct, &n, error));
    assert_int_equal(n, 2);
    assert_int_equal(correct[0], 0);
    assert_int_equal(correct[1], 1);
    free(correct);
    double *scores = NULL;
    assert_ok(store_eval_scores(store, base, 0, "test", "flexible", &scores, &n, error));
    assert_true(n == 2 && scores[0] == 0 && scores[1] == 1);
    free(scores);

    assert_string_equal(ask(store, "SELECT extractor, row, text, answer, correct FROM eval_sample "
                                   "ORDER BY extractor, row"),
                        "flexible,0,a,2,0\r\nflexible,1,b,2,1\r\nstrict,0,a,2,0\r\n");
    assert_string_equal(ask(store, "SELECT count(*) FROM eval_completion"), "2\r\n");

    Error told = {{0}};
    samples[1].extractor = "boxed";
    assert_int_equal(store_evaluations(store, bases, 2, samples, 3, 5.0, &told), STATUS_FAILED);
    assert_says(&told, "samples under \"boxed\", which was not evaluated");
    runs[0].run_id = "mistyped";
    assert_int_equal(store_evaluations(store, runs, 1, NULL, 0, 7.0, &told), STATUS_FAILED);
    assert_says(&told, "evaluation of mistyped, step 50: FOREIGN KEY");
    store_close(store);
}

static void runs_are_found_by_the_start_of_their_id(void **state)
{
    (void)state;
    int64_t attempt, last;
    RunState run_state;
    Store *store = open_with_run(&attempt);
    RunInfo other = info;
    other.run_id = "00aa99";
    assert_ok(store_run(store, &other, 2.0, &run_state, &last, error));
    StoredRun run;
    Error told = {{0}};
    assert_ok(store_find_run(store, "00aa1", &run, error));
    assert_string_equal(run.run_id, info.run_id);
    assert_string_equal(run.experiment, "e");
    assert_string_equal(run.adapter, "tinylora");
    assert_int_equal(run.state, RUN_RUNNING);
    assert_int_equal(run.steps, 100);
    free(run.block);
    assert_int_equal(store_find_run(store, "00aa", &run, &told), STATUS_USAGE);
    assert_says(&told, "\"00aa\" begins more than one run's id");
    assert_int_equal(store_find_run(store, "ff", &run, &told), STATUS_USAGE);
    assert_says(&told, "no run \"ff\"");
    assert_int_equal(store_find_run(store, "%", &run, &told), STATUS_USAGE);
    store_close(store);
}

static void seeds_of_a_cell_are_taken_together(void **state)
{
    (void)state;
    int64_t attempt, last;
    RunState run_state;
    Store *store = open_with_run(&attempt);
    RunInfo other = info;
    other.run_id = "11bb";
    other.seed = 8;
    assert_ok(store_run(store, &other, 2.0, &run_state, &last, error));
    assert_ok(store_run_end(store, info.run_id, RUN_DONE, NULL, 0.2, 0.01, 9.0, error));
    assert_ok(store_run_end(store, "11bb", RUN_DONE, NULL, 0.4, 0.01, 9.0, error));
    other.run_id = "22cc";
    other.lr = 0.5;
    assert_ok(store_run(store, &other, 2.0, &run_state, &last, error));
    assert_ok(store_run_end(store, "22cc", RUN_FAILED, "NaN", NAN, NAN, 9.0, error));
    assert_string_equal(ask(store, "SELECT lr, runs, done, failed, round(objective, 12), "
                                   "round(seed_se, 12), lowest, highest FROM sweep_summary"),
                        "0.00020000000000000001,2,2,0,0.29999999999999999,0.10000000000000001,"
                        "0.20000000000000001,0.40000000000000002\r\n0.5,1,0,1,,,,\r\n");
    assert_string_equal(ask(store, "SELECT value FROM run_show WHERE run_id = '22cc' AND key IN "
                                   "('state', 'reason')"),
                        "failed\r\nNaN\r\n");
    store_close(store);
}

static void a_reader_never_checkpoints(void **state)
{
    (void)state;
    int64_t attempt;
    store_close(open_with_run(&attempt));
    pid_t child = fork();
    if (child == 0) { /* a writer that dies with a step in the log */
        Store *store = NULL;
        Error told = {{0}};
        Status status = store_open(&store, path, STORE_WRITE, 0, &told);
        _exit(status || store_event(store, NULL, -1, "note", "x", 1.0, &told));
    }
    int code = 0;
    waitpid(child, &code, 0);
    assert_int_equal(code, 0);
    char wal[128];
    snprintf(wal, sizeof wal, "%s-wal", path);
    struct stat before, after, database_before, database_after;
    assert_int_equal(stat(wal, &before), 0);
    assert_int_equal(stat(path, &database_before), 0);
    assert_true(before.st_size > 0);
    Store *reader = NULL;
    assert_ok(store_open(&reader, path, STORE_READ, 0, error));
    assert_string_equal(ask(reader, "SELECT message FROM event"), "x\r\n");
    store_close(reader);
    assert_int_equal(stat(wal, &after), 0);
    assert_int_equal(stat(path, &database_after), 0);
    assert_int_equal(after.st_size, before.st_size);
    assert_true(database_after.st_mtim.tv_sec == database_before.st_mtim.tv_sec &&
                database_after.st_mtim.tv_nsec == database_before.st_mtim.tv_nsec);
    /* the next writer does, when it is the last to close */
    assert_ok(store_open(&reader, path, STORE_WRITE, 0, error));
    store_close(reader);
    assert_int_equal(stat(wal, &after), -1);
}

static void network_file_systems_are_known_by_their_magic(void **state)
{
    (void)state;
    assert_true(store_is_network_file_system(0x6969));
    assert_true(store_is_network_file_system(0xff534d42));
    assert_true(
        store_is_network_file_system((unsigned long)(long)(int)0xff534d42)); /* sign-extended */
    assert_false(store_is_network_file_system(0xef53));                      /* ext4 */
    assert_false(store_is_network_file_system(0x01021994));                  /* tmpfs */
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {
        TEST(a_new_store_has_its_schema_and_is_in_wal_mode),
        TEST(a_run_is_stored_once_and_keeps_its_state),
        TEST(a_step_is_whole_and_comes_once),
        TEST(resuming_drops_what_is_later_than_the_checkpoint),
        TEST(a_live_worker_elsewhere_is_respected_until_its_heartbeat_is_old),
        TEST(a_second_writer_is_refused_and_readers_are_not),
        TEST(files_that_are_not_ours_are_refused),
        TEST(a_missing_file_is_told_and_an_orphaned_wal_is_not_replayed),
        TEST(damage_is_noticed),
        TEST(a_full_disk_loses_only_the_step_in_flight),
        TEST(a_file_size_limit_loses_only_the_step_in_flight),
        TEST(a_database_that_nobody_may_write_can_be_read),
        TEST(the_base_stands_among_the_best_runs),
        TEST(runs_are_found_by_the_start_of_their_id),
        TEST(seeds_of_a_cell_are_taken_together),
        TEST(a_reader_never_checkpoints),
        TEST(network_file_systems_are_known_by_their_magic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
