/* Progress: one line rewritten in place on a terminal, a line now and then elsewhere. */
#include "cli/world.h"

#include <gnu/libc-version.h>
#include <math.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/blas.h"
#include "core/kernels.h"
#include "experiments/identity.h"

static const double TERMINAL_INTERVAL_S = 0.2, PLAIN_INTERVAL_S = 10;

static double now_s(void *context)
{
    (void)context;
    return cli_now_s();
}

static double clock_s(void *context)
{
    (void)context;
    return cli_clock_s();
}

static bool stopping(void *context)
{
    (void)context;
    return cli_stopping();
}

static void wait_s(void *context, double seconds)
{
    (void)context;
    nanosleep(&(struct timespec){(time_t)seconds, (long)(fmod(seconds, 1) * 1e9)}, NULL);
}

static void end_line(CliWorld *world)
{
    if (world->line_open) {
        fputs("\r\033[K", stderr);
        world->line_open = false;
    }
}

static void note(void *context, const char *line)
{
    CliWorld *world = context;
    end_line(world);
    cli_note(world->cli, "%s", line);
}

static void describe_steps(const Progress *progress, Text *out)
{
    text_printf(out, "[%d/%d", progress->n_done, progress->n_cells);
    if (progress->n_failed) {
        text_printf(out, ", %d failed", progress->n_failed);
    }
    text_printf(out, "] step %lld/%lld", (long long)progress->step, (long long)progress->steps);
    if (progress->n_fused > 1) {
        text_printf(out, " x %d runs", progress->n_fused);
    }
    if (isfinite(progress->reward)) {
        text_printf(out, "  %s %.4g", progress->measure, progress->reward);
    }
}

static void describe(const CliWorld *world, const Progress *progress, double now, Text *out)
{
    int64_t done = progress->steps_done - world->steps_before;
    if (progress->scan) {
        text_printf(out, "[row %d/%d] %lld/%lld points", progress->n_done, progress->n_cells,
                    (long long)progress->steps_done, (long long)progress->steps_total);
        if (done > 0) {
            text_printf(out, "  %.3g points/s", (double)done / (now - world->began_s));
        }
        if (isfinite(progress->best)) {
            text_printf(out, "  best %s %.5g", progress->measure, progress->best);
        }
        if (progress->n_others) {
            text_printf(out, "  with %d other process%s", progress->n_others,
                        progress->n_others > 1 ? "es" : "");
        }
    } else {
        describe_steps(progress, out);
    }
    if (progress->phase && progress->phase_total > 1) {
        text_printf(out, "  %s %d/%d", progress->phase, progress->phase_done,
                    progress->phase_total);
    }
    if (progress->tokens > 0) {
        text_printf(out, "  %ld tokens", progress->tokens);
    }
    if (done > 0 && progress->steps_total > progress->steps_done) {
        double each = (now - world->began_s) / (double)done;
        text_add(out, "  left ");
        text_duration(out, each * (double)(progress->steps_total - progress->steps_done));
    }
}

static void progress(void *context, const Progress *progress)
{
    CliWorld *world = context;
    double now = cli_clock_s();
    if (world->began_s == 0) {
        world->began_s = now;
        world->steps_before = progress->steps_done;
        world->shown_s = world->cli->terminal ? 0 : now;
    }
    double interval = world->cli->terminal ? TERMINAL_INTERVAL_S : PLAIN_INTERVAL_S;
    if (world->cli->quiet || now - world->shown_s < interval) {
        return;
    }
    Text line = {0};
    describe(world, progress, now, &line);
    world->shown_s = now;
    if (world->cli->terminal) {
        fprintf(stderr, "\r%s\033[K", text_string(&line));
        fflush(stderr);
        world->line_open = true;
    } else {
        fprintf(stderr, "%s\n", text_string(&line));
    }
    text_release(&line);
}

/* First line of a small file of /proc, without its newline. */
static void read_first_line(char *out, size_t size, const char *path)
{
    FILE *file = fopen(path, "r");
    out[0] = 0;
    if (file) {
        if (fgets(out, (int)size, file)) {
            out[strcspn(out, "\n")] = 0;
        }
        fclose(file);
    }
}

static void describe_cpu(Text *out)
{
    char line[256];
    FILE *file = fopen("/proc/cpuinfo", "r");
    const char *name = "";
    while (file && fgets(line, sizeof line, file)) {
        if (strncmp(line, "model name", 10) == 0 && strchr(line, ':')) {
            name = strchr(line, ':') + 1;
            name += strspn(name, " \t");
            line[strcspn(line, "\n")] = 0;
            break;
        }
    }
    text_json_string(out, name, strlen(name));
    if (file) {
        fclose(file);
    }
}

void cli_world_init(CliWorld *world, const Cli *cli)
{
    memset(world, 0, sizeof *world);
    world->cli = cli;
    gethostname(world->host, sizeof world->host - 1);
    read_first_line(world->boot_id, sizeof world->boot_id, "/proc/sys/kernel/random/boot_id");
    text_printf(&world->environment,
                "{\"version\":\"%s\",\"numerics\":%d,\"threads\":%d,\"cpu\":", TINYLORA_VERSION,
                NUMERICS_VERSION, cli->n_threads);
    describe_cpu(&world->environment);
    char version[64];
    blas_version(version, sizeof version);
    text_printf(
        &world->environment,
        ",\"kernels\":\"%s\",\"openblas\":\"%s\",\"openblas_version\":\"%s\",\"libc\":\"%s\"}",
        kernels_best()->name, blas_core_name(), version, gnu_get_libc_version());
    world->world = (World){.context = world,
                           .now_s = now_s,
                           .clock_s = clock_s,
                           .stopping = stopping,
                           .wait = wait_s,
                           .note = note,
                           .progress = progress,
                           .host = world->host,
                           .boot_id = world->boot_id,
                           .pid = getpid(),
                           .environment = text_string(&world->environment),
                           .n_threads = cli->n_threads,
                           .models = cli->models,
                           .cache = cli->cache,
                           .lock = cli->lock};
}

void cli_world_release(CliWorld *world)
{
    end_line(world);
    text_release(&world->environment);
}
