/* tinylora watch */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "cli/options.h"
#include "cli/verbs.h"
#include "cli/watch.h"
#include "cli/world.h"

typedef struct {
    bool in_place; /* stdout is a terminal that can be rewritten */
    int n_lines;   /* of the block that stands there */
} Screen;

/* The block cut to the terminal, over the one before. */
static void rewrite(Screen *screen, const Text *block, Text *out)
{
    struct winsize size = {0};
    bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0;
    int height = known && size.ws_row > 2 ? size.ws_row - 1 : 23;
    int width = known && size.ws_col > 10 ? size.ws_col : 80;
    if (screen->n_lines) {
        text_printf(out, "\033[%dA", screen->n_lines);
    }
    text_add(out, "\r\033[J");
    screen->n_lines = 0;
    for (const char *at = block->bytes; *at && screen->n_lines < height; screen->n_lines++) {
        int column = 0;
        for (; *at && *at != '\n'; at++) {
            column += ((unsigned char)*at & 0xc0) != 0x80;
            if (column < width) {
                text_append(out, at, 1);
            }
        }
        at += *at == '\n';
        text_add(out, "\n");
    }
}

static Status show(Screen *screen, const Watched *watched, const Cli *cli, Error *error)
{
    Text block = {0}, out = {0};
    bool json = cli->format == FORMAT_JSON || cli->format == FORMAT_JSONL;
    watch_print(watched, cli->db, json, &block);
    if (screen->in_place && !json) {
        rewrite(screen, &block, &out);
    } else {
        text_printf(&out, "%s%s", screen->n_lines++ && !json ? "\n" : "", block.bytes);
    }
    Status status = cli_write(text_string(&out), out.n, error);
    if (!status && fflush(stdout) != 0) {
        status = error_set(error, STATUS_FAILED, "writing the result: %s", strerror(errno));
    }
    text_release(&block);
    text_release(&out);
    return status;
}

static int interrupted(void *context)
{
    (void)context;
    return cli_stopping();
}

static void pause_s(double seconds)
{
    double until = cli_clock_s() + seconds, left;
    while (!cli_stopping() && (left = until - cli_clock_s()) > 0) {
        nanosleep(&(struct timespec){.tv_nsec = left < 0.1 ? (long)(left * 1e9) : 100000000}, NULL);
    }
}

/* Ends when nothing runs, or with *error untouched when asked to. */
static Status watch(const Cli *cli, Store *store, const Worker *here, double every_s, bool once,
                    Error *error)
{
    Screen screen = {.in_place = cli->terminal && isatty(STDOUT_FILENO) && !once};
    Status status = STATUS_OK;
    bool running = true;
    for (bool first = true; !status && running && (first || !once) && !cli_stopping();
         first = false) {
        Watched watched = {0};
        Error why = {0};
        double began_s = cli_clock_s();
        status = watch_read(&watched, store, here, began_s, &why);
        if (status == STATUS_STOPPED) {
            watch_release(&watched);
            break;
        }
        status = status ? error_set(error, status, "%s", why.message)
                        : show(&screen, &watched, cli, error);
        running = watched.running;
        watch_release(&watched);
        double took_s = cli_clock_s() - began_s; /* a large file is not read all the time */
        pause_s(status || !running || once ? 0 : 10 * took_s > every_s ? 10 * took_s : every_s);
    }
    if (!status && !running) {
        cli_note(cli, "nothing is running in \"%s\"", cli->db);
    }
    return !status && running && !once ? STATUS_STOPPED : status;
}

static Status run(Cli *cli, int argc, char **argv, Error *error)
{
    double every_s = 2;
    bool once = false;
    const Option options[] = {
        {"--every", OPTION_NUMBER, &every_s, 0.1, 86400},
        {"--once", OPTION_FLAG, &once, 0, 0},
    };
    Store *store;
    CliWorld world;
    Status status = options_parse(cli, options, 2, argc, argv, NULL, 0, 0, error);
    if (!status && (cli->format == FORMAT_CSV || cli->format == FORMAT_MD)) {
        status = error_set(error, STATUS_USAGE, "-o: table, json and jsonl can be watched");
    }
    status = status ? status : cli_open_store(cli, &store, error);
    if (status) {
        return status;
    }
    cli_world_init(&world, cli);
    store_interrupt(store, interrupted, NULL);
    const Worker here = {world.world.host, world.world.pid, world.world.boot_id,
                         world.world.environment};
    status = watch(cli, store, &here, every_s, once, error);
    cli_world_release(&world);
    store_close(store);
    return status;
}

const Verb verb_watch = {
    .name = "watch",
    .summary = "running work, seen from another process",
    .usage = "[--every S] [--once]",
    .help =
        "Runs: step, pace and time left, reward (or loss) of the last step and the best so far.\n"
        "Surfaces: rows done, processes alive, time left, the base's value and the best so far.\n"
        "Reads only, and never makes the writer wait. What a dead process left is \"lost\": the "
        "command\n"
        "that began it goes on with it. Ends when nothing runs any more.\n\n"
        "  --every S   seconds between two looks (2 unless given)\n"
        "  --once      one look\n\n"
        "With -o json each look is one object on a line: at, running, writer, experiments, runs, "
        "surfaces.\n\n"
        "examples:\n"
        "  tinylora watch\n"
        "  tinylora --db /data/results.db -o json watch --every 60 | tee progress.jsonl\n",
    .run = run,
};
