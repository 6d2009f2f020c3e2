/* `scan` from outside: what it leaves in results.db, what `score` says of its points, what it
 * refuses and with which words. */
#define _GNU_SOURCE /* open file description locks */
#include <math.h>
#include <sys/stat.h>
#include <time.h>

#include "results/database.h"
#include "tests/cli_scan.h"

#define SCAN "--db a.db scan scan.json --no-figures"

static int make_surface(void **state)
{
    if (run_setup(state)) {
        return 1;
    }
    run_write("scan.json", SCAN_CONFIG(SMALL_GRID));
    run_write("even.json", SCAN_CONFIG("\"x\": \"-0.05:0.05:20\", \"y\": \"-0.05:0.05:20\""));
    run_write("odd.json", SCAN_CONFIG("\"x\": \"-0.05:0.05:21\", \"y\": \"-0.05:0.05:21\""));
    expect_ok(SCAN);
    return 0;
}

static const Json *only_object(JsonDocument **document, const char *text)
{
    Error error = {0};
    if (json_parse(document, text, strlen(text), &error)) {
        print_error("%s\n%s\n", error.message, text);
        fail();
    }
    const Json *root = json_root(*document);
    return json_kind(root) == JSON_ARRAY ? json_at(root, 0) : root;
}

static double number_of(const Json *object, const char *key)
{
    double number = NAN;
    if (!json_double(json_get(object, key), &number)) {
        print_error("no number \"%s\"\n", key);
        fail();
    }
    return number;
}

static double ask_double(const char *db, const char *sql)
{
    char *answer = ask(db, sql);
    char *end;
    double number = strtod(answer, &end);
    assert_true(end != answer && !*end);
    free(answer);
    return number;
}

static void the_report_tells_what_is_in_the_file(void **state)
{
    (void)state;
    JsonDocument *document = NULL;
    Run r = expect("-o json " SCAN, 0); /* done already: it is told again */
    const Json *report = only_object(&document, r.out);
    assert_string_equal(json_string(json_get(report, "state"), NULL), "done");
    assert_string_equal(json_string(json_get(report, "grid"), NULL), "9 x 9");
    assert_string_equal(json_string(json_get(report, "metric"), NULL), "loss");
    assert_true(number_of(report, "rows_done") == 9 && number_of(report, "holes") == 0);
    assert_true(number_of(report, "base") ==
                ask_double("a.db", "SELECT value FROM surface_mark WHERE kind = 'base' AND metric "
                                   "= 'loss'"));
    double lowest = ask_double("a.db", "SELECT min(value) FROM surface_grid WHERE metric = 'loss'");
    assert_true(number_of(report, "best") == lowest);
    assert_true(number_of(report, "minimum") < lowest);
    assert_true(fabs(number_of(report, "gain") -
                     (number_of(report, "base") - number_of(report, "minimum"))) < 1e-12);
    json_free(document);
    run_free(&r);
}

static void the_origin_of_an_odd_grid_is_the_base_model_to_the_bit(void **state)
{
    (void)state;
    expect_ok("--db odd.db scan odd.json --no-figures");
    assert_int_equal(ask_number("odd.db", "SELECT count(*) FROM surface_grid p JOIN surface_mark m "
                                          "USING (surface_id, metric) WHERE p.x = 0 AND p.y = 0 "
                                          "AND m.kind = 'base' AND p.value = m.value AND "
                                          "metric IN ('loss', 'entropy')"),
                     2);
    assert_int_equal(
        ask_number("odd.db", "SELECT count(*) FROM surface_point WHERE metric = 'loss'"), 441);
}

static void an_even_grid_runs_and_keeps_its_ends(void **state)
{
    (void)state;
    expect_ok("--db even.db scan even.json --no-figures");
    assert_int_equal(ask_number("even.db", "SELECT count(*) FROM surface_point WHERE metric = "
                                           "'loss' AND value IS NOT NULL"),
                     400);
    assert_int_equal(ask_number("even.db", "SELECT count(*) FROM surface_point WHERE metric = "
                                           "'loss' AND abs(x) = 0.05 AND abs(y) = 0.05"),
                     4);
    assert_int_equal(ask_number("even.db", "SELECT count(*) FROM surface_point WHERE x = 0"), 0);
}

/* The first rows of the training file as they are scored: prompt, answer, end of the text. */
typedef struct {
    long n_prompt[4];
} ScoredRows;

static long count_tokens(const char *file)
{
    char command[128];
    snprintf(command, sizeof command, "tokenize --model abacus --file %s", file);
    Run r = expect(command, 0);
    long n = 0;
    for (const char *at = r.out; *at; at++) {
        n += *at == ',' || *at == '[';
    }
    run_free(&r);
    return n;
}

static void write_rows(ScoredRows *rows)
{
    FILE *train = fopen(TRAIN, "r"), *texts = fopen("texts.jsonl", "w");
    assert_true(train && texts);
    for (int i = 0; i < 4; i++) {
        char line[1024];
        JsonDocument *document = NULL;
        Text whole = {0}, quoted = {0};
        assert_non_null(fgets(line, sizeof line, train));
        assert_int_equal(json_parse(&document, line, strlen(line) - 1, NULL), 0);
        text_add(&whole, json_string(json_get(json_root(document), "question"), NULL));
        text_json_string(&quoted, whole.bytes, whole.n);
        run_write("prompt.jsonl", quoted.bytes);
        rows->n_prompt[i] = count_tokens("prompt.jsonl");
        text_add(&whole, json_string(json_get(json_root(document), "answer"), NULL));
        text_add(&whole, "<|endoftext|>");
        text_clear(&quoted);
        text_json_string(&quoted, whole.bytes, whole.n);
        fprintf(texts, "%s\n", quoted.bytes);
        text_release(&whole);
        text_release(&quoted);
        json_free(document);
    }
    fclose(train);
    fclose(texts);
}

/* The loss that `score` gives at a point: the answers' tokens alone. */
static double score_at(const ScoredRows *rows, const char *at)
{
    char command[256];
    double sum = 0;
    size_t n_tokens = 0;
    snprintf(command, sizeof command,
             "--db a.db -o jsonl score --surface hill --at=%s --file texts.jsonl", at);
    Run r = expect(command, 0);
    char *rest = r.out;
    for (int i = 0; i < 4; i++) {
        JsonDocument *document = NULL;
        const Json *scored = only_object(&document, strsep(&rest, "\n"));
        const Json *logprobs = json_get(scored, "logprobs");
        double row = 0;
        for (size_t t = (size_t)rows->n_prompt[i] - 1; t < json_size(logprobs); t++, n_tokens++) {
            double logprob = NAN;
            assert_true(json_double(json_at(logprobs, t), &logprob));
            row -= logprob;
        }
        sum += row;
        json_free(document);
    }
    run_free(&r);
    return sum / (double)n_tokens;
}

static void points_are_what_score_says_of_them(void **state)
{
    (void)state;
    ScoredRows rows;
    unsigned seed = (unsigned)time(NULL);
    print_message("seed %u\n", seed);
    srand(seed);
    write_rows(&rows);
    for (int k = 0; k < 10; k++) {
        char sql[256], at[80];
        snprintf(
            sql, sizeof sql,
            "SELECT printf('%%.17g,%%.17g', x, y) FROM surface_point WHERE metric = 'loss' AND "
            "i = %d AND j = %d",
            rand() % 9, rand() % 9);
        char *place = ask("a.db", sql);
        snprintf(at, sizeof at, "%.*s", (int)strcspn(place + 1, "\""), place + 1);
        free(place);
        snprintf(sql, sizeof sql,
                 "SELECT value FROM surface_point WHERE metric = 'loss' AND printf('%%.17g,%%.17g',"
                 " x, y) = '%s'",
                 at);
        double stored = ask_double("a.db", sql), scored = score_at(&rows, at);
        if (!(fabs(stored - scored) <= 1e-12)) { /* the sums alone run in another order */
            print_error("at %s: %.17g stored, %.17g scored\n", at, stored, scored);
            fail();
        }
    }
    static const char *const named[] = {"base", "best", "minimum"};
    for (int k = 0; k < 3; k++) {
        char sql[160];
        snprintf(sql, sizeof sql,
                 "SELECT value FROM surface_mark WHERE kind = '%s' AND metric = 'loss'", named[k]);
        assert_true(fabs(ask_double("a.db", sql) - score_at(&rows, named[k])) <= 1e-12);
    }
}

static void a_point_of_a_surface_generates(void **state)
{
    (void)state;
    Run base =
        expect("generate --model abacus --greedy --max-new 8 --prompt \"Tom has 6 cards.\"", 0);
    Run origin = expect("--db a.db generate --surface hill --at 0,0 --greedy --max-new 8 --prompt "
                        "\"Tom has 6 cards.\"",
                        0);
    Run far = expect("--db a.db generate --surface hill --at=-40,55 --greedy --max-new 8 --prompt "
                     "\"Tom has 6 cards.\"",
                     0);
    assert_string_equal(base.out, origin.out);
    assert_string_not_equal(base.out, far.out);
    run_free(&base);
    run_free(&origin);
    run_free(&far);
    expect_refused("--db a.db generate --surface hill --prompt x", 2,
                   "--surface and --at go together");
    expect_refused("--db a.db generate --surface hill --at base --run 3 --prompt x", 2,
                   "--run and --surface exclude each other");
    expect_refused("--db a.db generate --surface hill --at 1:2 --prompt x", 2, "--at \"1:2\"");
    expect_refused("--db a.db generate --surface hill --at 1,nan --prompt x", 2,
                   "two numbers X,Y, or minimum, best or base are expected");
    expect_refused("--db a.db generate --surface valley --at base --prompt x", 2, "valley");
}

static void threads_do_not_show(void **state)
{
    (void)state;
    char *one = NULL;
    for (int threads = 1; threads <= 3; threads++) {
        char command[128];
        snprintf(command, sizeof command,
                 "--db threads.db --threads %d scan scan.json --no-figures", threads);
        expect_ok(command);
        char *all = dump_surface("threads.db");
        if (one) {
            assert_same_surface(one, all);
            free(all);
        } else {
            one = all;
        }
        forget("threads.db");
    }
    free(one);
}

static void a_surface_that_is_done_is_left_as_it_is(void **state)
{
    (void)state;
    char *before = dump_surface("a.db");
    long events = ask_number("a.db", "SELECT count(*) FROM event");
    Run r = expect(SCAN, 0);
    assert_non_null(strstr(r.err, "9 of 9 rows done, 0 of them now"));
    run_free(&r);
    char *after = dump_surface("a.db");
    assert_same_surface(before, after);
    assert_int_equal(ask_number("a.db", "SELECT count(*) FROM event"), events);
    free(before);
    free(after);
}

static void a_changed_config_is_refused_naming_what_changed(void **state)
{
    (void)state;
    static const struct {
        const char *set, *line, *key;
    } changes[] = {
        {"scan.x=-1:1:11", "scan.x: \"-1:1:9\" -> \"-1:1:11\"", "differs in scan.x;"},
        {"scan.y=-0.7:0.8:9", "scan.y: \"-0.8:0.8:9\" -> \"-0.7:0.8:9\"", "differs in scan.y;"},
        {"scan.rows=5", "scan.rows: 4 -> 5", "differs in scan.rows;"},
        {"scan.max_length=64", "scan.max_length: 512 -> 64", "differs in scan.max_length;"},
        {"scan.values='[\"loss\"]'", "scan.values: [\"loss\", \"entropy\"] -> [\"loss\"]",
         "differs in scan.values;"},
        {"data.template='Q: {question}A: '", "data.template: \"plain\" -> \"Q: {question}A: \"",
         "differs in data.template;"},
        {"adapter.seed=14", "adapter.seed: 13 -> 14", "differs in adapter.seed;"},
        {"adapter.tie=all", "adapter.tie: \"tiled\" -> \"all\"",
         "differs in adapter.groups, adapter.tie, adapter.u;"},
        {"data.train=" SOURCE_DIR "/models/abacus/dev.jsonl",
         "data.train_sha256 (dev.jsonl): ", "differs in data.train_sha256;"},
    };
    char *before = dump_surface("a.db");
    for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
        char command[512];
        snprintf(command, sizeof command, SCAN " --set %s", changes[i].set);
        Run r = expect(command, 2);
        if (!strstr(r.err, changes[i].line) || !strstr(r.err, changes[i].key) ||
            !strstr(r.err, "--new")) {
            print_error("%s\n%swanted: %s, %s\n", command, r.err, changes[i].line, changes[i].key);
            fail();
        }
        run_free(&r);
    }
    char *after = dump_surface("a.db");
    assert_same_surface(before, after); /* and nothing was written */
    free(before);
    free(after);
}

static void a_changed_model_is_refused_and_new_goes_beside(void **state)
{
    (void)state;
    assert_int_equal(system("cp -r '" SOURCE_DIR "/models/abacus' model"), 0);
    expect_ok("--db m.db scan scan.json --no-figures --set model=./model");
    FILE *weights = fopen("model/model.safetensors", "r+b");
    assert_non_null(weights);
    fseek(weights, -3, SEEK_END);
    fputc(0x3e, weights); /* half of a bf16 of the last tensor */
    fclose(weights);
    Run r = expect("--db m.db scan scan.json --no-figures --set model=./model", 2);
    assert_non_null(strstr(r.err, "model.weights_sha256 ("));
    assert_non_null(strstr(r.err, "differs in model.weights_sha256;"));
    run_free(&r);
    expect_refused("--db m.db score --surface hill --at base --file texts.jsonl", 2,
                   "is of another model: weights");
    expect_ok("--db m.db scan scan.json --no-figures --set model=./model --new");
    assert_int_equal(ask_number("m.db", "SELECT count(*) FROM surface WHERE state = 'done'"), 2);
    expect_refused("--db m.db score --surface hill --at base --file texts.jsonl", 2, "hill");
    expect_ok("--db m.db scan scan.json --no-figures --set model=./model"); /* it is there */
}

static void stopped_by_a_signal_it_gives_its_row_back_and_goes_on(void **state)
{
    (void)state;
    expect_ok("--db whole.db scan odd.json --no-figures --set scan.rows=16");
    pid_t pid = run_start("", "--db stopped.db scan odd.json --no-figures --set scan.rows=16");
    while (access("stopped.db", F_OK) != 0) {
        usleep(2000);
    }
    usleep(150000);
    kill(pid, SIGTERM);
    Run r = run_wait(pid);
    if (r.code != 0) { /* a machine so fast that it was over before */
        assert_int_equal(r.code, 4);
        assert_non_null(strstr(r.err, "the same command goes on"));
        assert_int_equal(
            ask_number("stopped.db", "SELECT count(*) FROM surface_row WHERE state = 'running'"),
            0);
        assert_int_equal(
            ask_number("stopped.db", "SELECT count(*) FROM surface WHERE state = 'done'"), 0);
    }
    run_free(&r);
    r = expect(
        "--db stopped.db --max-time 0.15 scan odd.json --no-figures --set scan.rows=16",
        access("stopped.db", F_OK) == 0 &&
                ask_number("stopped.db", "SELECT count(*) FROM surface WHERE state = 'done'") == 1
            ? 0
            : 4);
    run_free(&r);
    expect_ok("--db stopped.db scan odd.json --no-figures --set scan.rows=16");
    char *one = dump_surface("whole.db"), *other = dump_surface("stopped.db");
    assert_same_surface(one, other);
    free(one);
    free(other);
}

/* Minimum, curvature and slices cost more than a small grid: it may be had alone. */
static void the_grid_alone_becomes_the_whole_surface_when_asked(void **state)
{
    (void)state;
    static const char beyond[] =
        "SELECT (SELECT count(*) FROM surface_mark WHERE kind = 'minimum') + (SELECT count(*) FROM "
        "surface_search) + (SELECT count(*) FROM surface_hessian) + (SELECT count(*) FROM "
        "surface_slice)";
    expect_ok("--db grid.db scan scan.json --no-figures --grid-only");
    assert_int_equal(ask_number("grid.db", beyond), 0);
    assert_int_equal(ask_number("grid.db", "SELECT count(*) FROM surface WHERE state = 'done'"), 1);
    assert_int_equal(ask_number("grid.db", "SELECT count(DISTINCT kind) FROM surface_mark"),
                     2);                                               /* base, best */
    expect_ok("--db grid.db scan scan.json --no-figures --grid-only"); /* nothing to do */
    assert_int_equal(ask_number("grid.db", beyond), 0);
    expect_ok("--db grid.db scan scan.json --no-figures");
    char *one = dump_surface("a.db"), *other = dump_surface("grid.db");
    assert_same_surface(one, other);
    long events = ask_number("grid.db", "SELECT count(*) FROM event");
    expect_ok("--db grid.db scan scan.json --no-figures"); /* nothing to do */
    expect_ok("--db grid.db scan scan.json --no-figures --grid-only");
    assert_int_equal(ask_number("grid.db", "SELECT count(*) FROM event"), events);
    free(one);
    free(other);
}

/* A file of schema version 3 was widened by `db upgrade` alone, after a refusal. */
static void a_surface_in_an_older_file_goes_on(void **state)
{
    (void)state;
    Database *database = NULL;
    Error error = {0};
    expect_ok("--db older.db scan scan.json --no-figures --grid-only");
    if (database_open(&database, "older.db", DATABASE_WRITE, &error) ||
        database_execute(database, "DROP TABLE surface_search; PRAGMA user_version = 3", &error)) {
        fail_msg("%s", error.message);
    }
    database_close(database);
    expect_refused("--db older.db ls", 3, "`tinylora db upgrade` widens it");
    expect_ok("--db older.db scan scan.json --no-figures");
    char *one = dump_surface("a.db"), *other = dump_surface("older.db");
    assert_same_surface(one, other);
    free(one);
    free(other);
}

static void while_another_process_writes_it_waits(void **state)
{
    (void)state;
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    expect_ok("--db turns.db scan scan.json --no-figures --set experiment=first");
    pid_t pid = fork(); /* `run` has one pair of files for what is printed */
    if (pid == 0) {
        execl("/bin/sh", "sh", "-c",
              "exec '" BUILD_DIR "/tinylora' --db turns.db scan odd.json --no-figures --set "
              "scan.rows=24 > turns.out 2> turns.err",
              (char *)NULL);
        _exit(127);
    }
    while (ask_number("turns.db",
                      "SELECT count(*) FROM surface_row JOIN surface USING (surface_id)"
                      " WHERE experiment = 'hill' AND surface_row.state = 'done'") < 2) {
        usleep(1000);
    }
    int file = open("turns.db-lock", O_RDWR);
    assert_true(file >= 0 && fcntl(file, F_OFD_SETLKW, &lock) == 0);
    usleep(2500000); /* longer than a scan waits in silence */
    close(file);
    int how;
    assert_true(waitpid(pid, &how, 0) == pid && WIFEXITED(how) && WEXITSTATUS(how) == 0);
    char *err = run_slurp("turns.err");
    assert_non_null(strstr(err, ", which writes to the same file"));
    free(err);
    assert_int_equal(ask_number("turns.db", "SELECT count(*) FROM surface WHERE state = 'done'"),
                     2);
}

static void values_that_are_no_numbers_are_holes_with_an_event(void **state)
{
    (void)state;
    Run r = expect("--db holes.db -o json scan scan.json --no-figures --set scan.x=-1e37:1e37:5 "
                   "--set scan.y=-1:1:3",
                   0);
    JsonDocument *document = NULL;
    const Json *report = only_object(&document, r.out);
    double holes = number_of(report, "holes");
    assert_true(holes > 0);
    assert_true(holes == (double)ask_number("holes.db", "SELECT count(*) FROM surface_point WHERE "
                                                        "value IS NULL"));
    assert_true(holes == (double)ask_number("holes.db", "SELECT count(*) FROM event WHERE kind = "
                                                        "'nonfinite' AND surface_id IS NOT NULL"));
    assert_int_equal(
        ask_number("holes.db", "SELECT count(*) FROM surface_row WHERE state = 'done'"), 5);
    json_free(document);
    run_free(&r);
}

static void what_makes_no_surface_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *arguments;
        int code;
        const char *message;
    } wrong[] = {
        {"scan.x=1:1:5", 2, "scan.x: range \"1:1:5\""},
        {"scan.x=0:1:1", 2, "scan.x: range \"0:1:1\""},
        {"scan.y=0:1", 2, "scan.y: range \"0:1\""},
        {"scan.y=auto:3", 2, "scan.y: \"auto:3\""},
        {"scan.x=-1:1:3163 --set scan.y=-1:1:3163", 2, "10004569 points"},
        {"adapter.budget=13", 2,
         "adapter.budget: 13 scalars, where a surface has exactly two; on this model {\"budget\": "
         "2, \"u\": 1, \"groups\": 2, \"tie\": \"tiled\"}"},
        {"adapter.method=full", 2, "adapter.method: \"full\", where a surface has exactly two"},
        {"sweep.seed=[1,2]", 2, "sweep: a scan has none"},
        {"scan.values='[\"los\"]'", 2, "the nearest is \"loss\""},
        {"scan.values='[\"loss\",\"loss\"]'", 2, "\"loss\" is there twice"},
        {"scan.values=[]", 2, "scan.values"},
        {"scan.directions=axes", 2, "scan.run: must be given"},
        {"scan.run=abc", 2, "scan.run: goes with the scan.directions"},
        {"scan.directions=pca --set scan.run=abc", 2, "scan.run"},
        {"data.question=problem", 3, "\"problem\""},
        {"data.train=empty.jsonl", 3, "empty.jsonl"},
        {"data.train=gone.jsonl", 3, "gone.jsonl"},
        {"model=nowhere", 3, "nowhere"},
        {"method=sft", 2, "use tinylora sft"},
    };
    run_write("empty.jsonl", "");
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        char command[512];
        snprintf(command, sizeof command, "--db wrong.db scan scan.json --no-figures --set %s",
                 wrong[i].arguments);
        expect_refused(command, wrong[i].code, wrong[i].message);
    }
    assert_int_equal(access("wrong.db", F_OK), -1); /* nothing was written */
    expect_refused("--db wrong.db sft scan.json", 2, "use tinylora scan");
    expect_refused("--db wrong.db sweep scan.json", 2, "use tinylora scan");
    expect_refused("--db wrong.db scan scan.json --figures f --no-figures", 2, "exclude");
}

static void the_config_shows_what_matters_to_a_scan_alone(void **state)
{
    (void)state;
    Run r = expect("config show scan.json", 0);
    static const char *const absent[] = {"\"grpo\"",  "\"sft\"",    "\"optimizer\"",
                                         "\"steps\"", "\"reward\"", "\"eval\"",
                                         "\"run\"",   "\"axes\"",   "\"checkpoint\""};
    for (size_t i = 0; i < sizeof absent / sizeof absent[0]; i++) {
        assert_null(strstr(r.out, absent[i]));
    }
    assert_non_null(strstr(r.out, "\"values\": [\"loss\", \"entropy\"]"));
    run_free(&r);
    r = expect("config show scan.json --set 'scan.values=[\"accuracy\"]'", 0);
    assert_non_null(strstr(r.out, "\"eval\": {\"samples\""));
    assert_non_null(strstr(r.out, "\"reward\": {\"extractor\""));
    run_free(&r);
    r = expect("config show scan.json --set method=sft", 0);
    assert_null(strstr(r.out, "\"scan\": {"));
    run_free(&r);
}

static void figures_are_left_beside_results_and_drawn_again_when_missing(void **state)
{
    (void)state;
    if (system("gnuplot --version > /dev/null 2>&1") != 0) {
        print_message("no gnuplot: skipped\n");
        skip();
    }
    Run r = expect("--db a.db -o json scan scan.json", 0);
    JsonDocument *document = NULL;
    const Json *report = only_object(&document, r.out);
    const char *files = json_string(json_get(report, "figures"), NULL);
    assert_non_null(strstr(files, "figures/hill-"));
    char first[256];
    snprintf(first, sizeof first, "%.*s", (int)strcspn(files, "\n"), files);
    assert_int_equal(access(first, F_OK), 0);
    long artifacts = ask_number("a.db", "SELECT count(*) FROM artifact WHERE kind = 'figure'");
    assert_true(artifacts > 0);
    assert_int_equal(unlink(first), 0);
    expect_ok("--db a.db scan scan.json");
    assert_int_equal(access(first, F_OK), 0);
    assert_int_equal(ask_number("a.db", "SELECT count(*) FROM artifact WHERE kind = 'figure'"),
                     artifacts);
    json_free(document);
    run_free(&r);
}

static void without_gnuplot_the_scan_is_complete_all_the_same(void **state)
{
    (void)state;
    Run r = run_wait(run_start("PATH=/nowhere;", "--db a.db scan scan.json --figures elsewhere"));
    assert_int_equal(r.code, 0);
    assert_non_null(strstr(r.err, "gnuplot"));
    run_free(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_report_tells_what_is_in_the_file),
        cmocka_unit_test(the_origin_of_an_odd_grid_is_the_base_model_to_the_bit),
        cmocka_unit_test(an_even_grid_runs_and_keeps_its_ends),
        cmocka_unit_test(points_are_what_score_says_of_them),
        cmocka_unit_test(a_point_of_a_surface_generates),
        cmocka_unit_test(threads_do_not_show),
        cmocka_unit_test(a_surface_that_is_done_is_left_as_it_is),
        cmocka_unit_test(a_changed_config_is_refused_naming_what_changed),
        cmocka_unit_test(a_changed_model_is_refused_and_new_goes_beside),
        cmocka_unit_test(stopped_by_a_signal_it_gives_its_row_back_and_goes_on),
        cmocka_unit_test(the_grid_alone_becomes_the_whole_surface_when_asked),
        cmocka_unit_test(a_surface_in_an_older_file_goes_on),
        cmocka_unit_test(while_another_process_writes_it_waits),
        cmocka_unit_test(values_that_are_no_numbers_are_holes_with_an_event),
        cmocka_unit_test(what_makes_no_surface_is_refused),
        cmocka_unit_test(the_config_shows_what_matters_to_a_scan_alone),
        cmocka_unit_test(figures_are_left_beside_results_and_drawn_again_when_missing),
        cmocka_unit_test(without_gnuplot_the_scan_is_complete_all_the_same),
    };
    return cmocka_run_group_tests(tests, make_surface, run_teardown);
}
