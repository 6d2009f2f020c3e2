/* The program: environment, signals, global options, the verb. The only file that reads the
 * environment and exits. */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "cli/audit.h"
#include "cli/options.h"
#include "experiments/model_lock.h"
#include "experiments/nearest.h"

#ifndef TINYLORA_MODELS_DIR
#define TINYLORA_MODELS_DIR "models"
#endif

static volatile sig_atomic_t stopping;

/* The first one asks for an orderly stop; where a long product does not come to an end in time, the
 * timer ends the process: a step is a transaction, so what is in flight is lost whole and
 * everything committed is safe. */
static void on_signal(int signal_number)
{
    if (stopping) {
        static const char told[] = "tinylora: stopped; the same command goes on\n";
        if (signal_number == SIGALRM && write(STDERR_FILENO, told, sizeof told - 1) < 0) {
            _exit(STATUS_FAILED);
        }
        _exit(signal_number == SIGALRM ? STATUS_STOPPED : 128 + signal_number);
    }
    stopping = 1;
    struct itimerval grace = {{0, 0}, {1, 200000}}; /* a plain system call: safe here */
    setitimer(ITIMER_REAL, &grace, NULL);
}

bool cli_stopping(void)
{
    return stopping != 0;
}

static double read_clock(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

double cli_now_s(void)
{
    return read_clock(CLOCK_REALTIME);
}

double cli_clock_s(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

void cli_arm_max_time(double seconds)
{
    if (seconds > 0) {
        struct itimerval timer = {{0, 0}, {0, 0}};
        timer.it_value.tv_sec = (time_t)seconds;
        timer.it_value.tv_usec = (suseconds_t)((seconds - (double)timer.it_value.tv_sec) * 1e6);
        setitimer(ITIMER_REAL, &timer, NULL);
    }
}

/* Mapped weights that became shorter under us. */
static void on_bus_error(int signal_number)
{
    (void)signal_number;
    static const char told[] =
        "tinylora: a file became shorter while it was in use, or its disk failed\n";
    if (write(STDERR_FILENO, told, sizeof told - 1) < 0) {
        _exit(STATUS_FAILED);
    }
    _exit(STATUS_FAILED);
}

static void catch_signals(void)
{
    static const int caught[] = {SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGALRM};
    struct sigaction action = {0};
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART;
    for (size_t i = 0; i < sizeof caught / sizeof caught[0]; i++) {
        sigaction(caught[i], &action, NULL);
    }
    signal(SIGBUS, on_bus_error);
    signal(SIGPIPE, SIG_IGN); /* a closed pipe is a failed write, */
    signal(SIGXFSZ, SIG_IGN); /* and so is a limit on file sizes */
}

/* OpenBLAS 0.3.21 does not know recent CPUs and reads its variables while it is loaded: set them
 * and start again, once. */
static void prepare_libraries(char **argv)
{
    bool changed = false;
    const char *kernels = NULL;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq")) {
        kernels = "SkylakeX";
    } else if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        kernels = "Haswell";
    }
#endif
    if (kernels && !getenv("OPENBLAS_CORETYPE")) {
        changed |= setenv("OPENBLAS_CORETYPE", kernels, 1) == 0;
    }
    if (!getenv("OPENBLAS_NUM_THREADS")) {
        changed |= setenv("OPENBLAS_NUM_THREADS", "1", 1) == 0;
    }
    if (!getenv("GOMP_SPINCOUNT") && !getenv("OMP_WAIT_POLICY")) {
        changed |= setenv("GOMP_SPINCOUNT", "5000", 1) == 0;
    }
    if (changed && !getenv("TINYLORA_STARTED")) {
        setenv("TINYLORA_STARTED", "1", 1);
        execv("/proc/self/exe",
              argv); /* where there is no /proc, the library keeps its own choice */
    }
    unsetenv("TINYLORA_STARTED");
}

static void print_usage(FILE *out)
{
    fprintf(out, "tinylora - reinforcement learning with a handful of parameters\n\n"
                 "usage: tinylora [--db FILE] [--threads N] [--max-time S] [--locked] [-o "
                 "table|json|jsonl|csv|md] [--quiet] VERB ...\n\n");
    for (int i = 0; i < n_verbs; i++) {
        fprintf(out, "  %-18s %s\n", verbs[i]->name, verbs[i]->summary);
    }
    fprintf(out,
            "\nexamples:\n"
            "  tinylora sweep experiments/presets/budget13-lr.json\n"
            "  tinylora best -o md\n\n"
            "`tinylora VERB --help` says more. Results go to stdout, everything else to stderr.\n"
            "exit codes: 0 done, 1 failed, 2 wrong usage or config, 3 an input file was refused,\n"
            "            4 stopped by a signal or a time limit after committing: run it again.\n");
}

static void print_help(const Verb *verb)
{
    printf("tinylora %s - %s\n\nusage: tinylora %s %s\n\n%s", verb->name, verb->summary, verb->name,
           verb->usage, verb->help);
}

/* `tinylora export --help`: the verbs that begin with the word; false when there is none. */
static bool print_group(const char *word)
{
    size_t n = strlen(word);
    bool any = false;
    for (int j = 0; j < n_verbs; j++) {
        if (strncmp(verbs[j]->name, word, n) == 0 && verbs[j]->name[n] == ' ') {
            printf("  %-15s %s\n", verbs[j]->name, verbs[j]->summary);
            any = true;
        }
    }
    if (any) {
        printf("\n`tinylora VERB --help` says more.\n");
    }
    return any;
}

/* The verb at argv[i]: two words are tried before one. */
static const Verb *find_verb(int argc, char **argv, int i, int *n_words)
{
    for (int words = 2; words >= 1; words--) {
        char name[64] = "";
        if (i + words > argc || strlen(argv[i]) > 30 || (words == 2 && strlen(argv[i + 1]) > 30)) {
            continue;
        }
        strcpy(name, argv[i]);
        if (words == 2) {
            strcat(strcat(name, " "), argv[i + 1]);
        }
        for (int j = 0; j < n_verbs; j++) {
            if (strcmp(verbs[j]->name, name) == 0) {
                *n_words = words;
                return verbs[j];
            }
        }
    }
    return NULL;
}

static Status unknown_verb(int argc, char **argv, int i, Error *error)
{
    const char *names[64];
    char both[128];
    for (int j = 0; j < n_verbs; j++) {
        names[j] = verbs[j]->name;
        size_t n = strcspn(names[j], " ");
        if (names[j][n] && strlen(argv[i]) == n && strncmp(names[j], argv[i], n) == 0) {
            if (i + 1 >= argc) {
                return error_set(error, STATUS_USAGE,
                                 "\"%s\" wants a second word, such as \"%s\"; see tinylora --help",
                                 argv[i], names[j]);
            }
            snprintf(both, sizeof both, "%.60s %.60s", argv[i], argv[i + 1]);
            argv[i] = both;
        }
    }
    return error_set(error, STATUS_USAGE,
                     "unknown verb \"%s\"; the nearest known one is \"%s\"; see tinylora --help",
                     argv[i], nearest_name(argv[i], names, (size_t)n_verbs));
}

static Status run(Cli *cli, int argc, char **argv, Error *error)
{
    int i = 1;
    for (; i < argc && argv[i][0] == '-'; i++) {
        Status status;
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            print_usage(stdout);
            return STATUS_OK;
        }
        if (strcmp(argv[i], "--version") == 0) {
            printf("tinylora %s\n", TINYLORA_VERSION);
            return STATUS_OK;
        }
        if (!options_global(cli, argc, argv, &i, &status, error)) {
            const char *positional;
            return options_parse(cli, NULL, 0, 1, argv + i, &positional, 0, 0, error);
        }
        if (status) {
            return status;
        }
    }
    if (i >= argc) {
        print_usage(stderr);
        return error_set(error, STATUS_USAGE, "a verb is missing");
    }
    int n_words;
    const Verb *verb = find_verb(argc, argv, i, &n_words);
    if (!verb && i + 1 < argc &&
        (strcmp(argv[i + 1], "--help") == 0 || strcmp(argv[i + 1], "-h") == 0) &&
        print_group(argv[i])) {
        return STATUS_OK;
    }
    if (!verb) {
        return unknown_verb(argc, argv, i, error);
    }
    i += n_words;
    for (int j = i; j < argc && strcmp(argv[j], "--") != 0; j++) {
        if (strcmp(argv[j], "--help") == 0 || strcmp(argv[j], "-h") == 0) {
            print_help(verb);
            return STATUS_OK;
        }
    }
    Status status = verb->run(cli, argc - i, argv + i, error);
    if (status == STATUS_USAGE) {
        error_context(error, status, "%s", verb->name);
    } else if (status == STATUS_REFUSED && verb->audited) {
        audit_refusal(cli, verb->name, error);
    }
    return status;
}

/* Where Hugging Face's tools keep their downloads, by their own rules. */
static void add_hub(Text *folders, const char *home_cache, const char *home)
{
    const char *hub = getenv("HF_HUB_CACHE"), *hf_home = getenv("HF_HOME");
    if (hub && *hub) {
        text_printf(folders, ":%s", hub);
    } else if (hf_home && *hf_home) {
        text_printf(folders, ":%s/hub", hf_home);
    } else if (home_cache && *home_cache) {
        text_printf(folders, ":%s/huggingface/hub", home_cache);
    } else if (home && *home) {
        text_printf(folders, ":%s/.cache/huggingface/hub", home);
    }
}

int main(int argc, char **argv)
{
    prepare_libraries(argv);
    catch_signals();
    const char *db = getenv("TINYLORA_DB");
    const char *models = getenv("TINYLORA_MODELS");
    const char *data = getenv("TINYLORA_DATA");
    const char *cache = getenv("TINYLORA_CACHE");
    const char *home_cache = getenv("XDG_CACHE_HOME");
    const char *home = getenv("HOME");
    const char *terminal = getenv("TERM");
    const char *no_color = getenv("NO_COLOR");
    Text model_folders = {0}, cache_folder = {0}, data_folder = {0};
    text_printf(&data_folder, "?data.folder=%s", data ? data : "");
    text_printf(&model_folders, "%s%s%s", models ? models : "", models && *models ? ":" : "",
                TINYLORA_MODELS_DIR);
    add_hub(&model_folders, home_cache, home);
    if (cache) {
        text_add(&cache_folder, cache);
    } else if (home_cache && *home_cache) {
        text_printf(&cache_folder, "%s/tinylora", home_cache);
    } else if (home && *home) {
        text_printf(&cache_folder, "%s/.cache/tinylora", home);
    }
    long n_cpus = sysconf(_SC_NPROCESSORS_ONLN);
    Cli cli = {
        .program = argv[0],
        .db = db && *db ? db : "results.db",
        .n_threads = n_cpus > 0 ? (int)n_cpus : 1,
        .models = text_string(&model_folders),
        .data = data && *data ? text_string(&data_folder) : NULL,
        .cache = cache_folder.n ? text_string(&cache_folder) : NULL,
        .terminal = isatty(STDERR_FILENO) && !(terminal && strcmp(terminal, "dumb") == 0) &&
                    !(no_color && *no_color),
    };
    Error error = {0};
    Status status = run(&cli, argc, argv, &error);
    if (!status && fflush(stdout) != 0) {
        status = error_set(&error, STATUS_FAILED, "writing the result: %s", strerror(errno));
    }
    if (status && error.message[0]) {
        fprintf(stderr, "tinylora: %s\n", error.message);
    }
    model_lock_free(cli.lock);
    text_release(&model_folders);
    text_release(&cache_folder);
    text_release(&data_folder);
    return (int)status;
}
