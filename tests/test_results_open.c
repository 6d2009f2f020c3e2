/* Opening results.db: what is created, who may write, what is refused, damage, full disks, readers.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "results/schema.h"
#include "tests/run_test.h"

static void a_new_store_has_its_schema_and_is_in_wal_mode(void **state)
{
    (void)state;
    Store *store = NULL;
    assert_ok(store_open(&store, path, STORE_WRITE, 0, error));
    assert_string_equal(ask(store, "PRAGMA application_id"), "1953264177\r\n");
    assert_string_equal(ask(store, "PRAGMA user_version"), "4\r\n");
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
    execute("PRAGMA user_version = 3");
    refused("not a results.db (0 of its 36 tables and views)");
    execute("PRAGMA user_version = 5");
    refused("schema version 5 is newer than this program's 4");
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
    assert_int_equal(store_checkpoint(store, info.run_id, &step, &checkpoint, &n_bytes, &told),
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

static void a_close_without_the_lock_keeps_the_log(void **state)
{
    (void)state;
    Store *store = NULL;
    char name[128];
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    assert_ok(store_open(&store, path, STORE_SHARED, 0, error));
    assert_ok(store_experiment(store, "e", "{}", 1.0, error));
    snprintf(name, sizeof name, "%s-lock", path);
    int file = open(name, O_RDWR);
    assert_int_equal(fcntl(file, F_OFD_SETLK, &lock), 0); /* someone who is about to write */
    Text holder = {0};
    assert_true(store_has_writer(store, &holder) && store_has_writer(store, NULL));
    assert_non_null(strstr(holder.bytes, "pid "));
    text_release(&holder);
    store_close(store);
    snprintf(name, sizeof name, "%s-wal", path);
    assert_int_equal(access(name, F_OK), 0);
    close(file);
    assert_ok(store_open(&store, path, STORE_SHARED, 0, error));
    assert_false(store_has_writer(store, &holder));
    text_release(&holder);
    assert_string_equal(ask(store, "SELECT count(*) FROM experiment"), "1\r\n");
    store_close(store);
    assert_int_not_equal(access(name, F_OK), 0);
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
        TEST(a_second_writer_is_refused_and_readers_are_not),
        TEST(files_that_are_not_ours_are_refused),
        TEST(a_missing_file_is_told_and_an_orphaned_wal_is_not_replayed),
        TEST(damage_is_noticed),
        TEST(a_full_disk_loses_only_the_step_in_flight),
        TEST(a_file_size_limit_loses_only_the_step_in_flight),
        TEST(a_database_that_nobody_may_write_can_be_read),
        TEST(a_reader_never_checkpoints),
        TEST(a_close_without_the_lock_keeps_the_log),
        TEST(network_file_systems_are_known_by_their_magic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
