/* Reads four views and asks whether the processes they name still live. */
#include "cli/watch.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/table.h"
#include "results/process.h"

/* A run tells of itself at each step, a row of a surface every few seconds. */
static const double RUN_SILENT_S = 1800, ROW_SILENT_S = 300;

static const char *or_empty(const char *text)
{
    return text ? text : "";
}

/* 0 where it is none. */
static int64_t whole(double number)
{
    return fabs(number) < 0x1p53 ? (int64_t)number : 0;
}

static Pulse pulse(const Frame *frame, size_t row, const Worker *here, double now_s,
                   double silent_s)
{
    const char *host = frame_text(frame, "host", row);
    const char *boot_id = frame_text(frame, "boot_id", row);
    double silence_s = now_s - frame_number(frame, "heartbeat_at", row);
    if (!host || !boot_id || isfinite(frame_number(frame, "ended_at", row)) ||
        process_is_gone(here, host, whole(frame_number(frame, "pid", row)), boot_id,
                        whole(frame_number(frame, "born", row)), silence_s)) {
        return PULSE_LOST;
    }
    bool elsewhere = strcmp(host, here->host) != 0 || strcmp(boot_id, here->boot_id) != 0;
    return elsewhere && silence_s > silent_s ? PULSE_SILENT : PULSE_ALIVE;
}

static Status count_processes(Watched *watched, Store *store, const Worker *here, Error *error)
{
    Frame processes = {0};
    Status status = frame_read(&processes, store,
                               "SELECT p.*, NULL AS ended_at FROM surface_process p JOIN surface s "
                               "USING (surface_id) WHERE s.state = 'running'",
                               NULL, 0, error);
    for (size_t k = 0; !status && k < processes.n_rows; k++) {
        bool alive = pulse(&processes, k, here, watched->at_s, ROW_SILENT_S) == PULSE_ALIVE;
        for (size_t i = 0; alive && i < watched->surfaces.n_rows; i++) {
            watched->n_processes[i] +=
                strcmp(or_empty(frame_text(&watched->surfaces, "surface_id", i)),
                       or_empty(frame_text(&processes, "surface_id", k))) == 0;
        }
    }
    frame_release(&processes);
    return status;
}

Status watch_read(Watched *watched, Store *store, const Worker *here, double now_s, Error *error)
{
    watched->at_s = now_s;
    Status status = frame_read(
        &watched->experiments, store,
        "SELECT m.experiment, count(*) AS runs, sum(r.state = 'done') AS done, sum(r.state = "
        "'running') AS running, sum(r.state = 'waiting') AS waiting, sum(r.state = 'failed') AS "
        "failed FROM experiment_run m JOIN run r USING (run_id) GROUP BY m.experiment HAVING "
        "sum(r.state = 'running') > 0",
        NULL, 0, error);
    status = status
                 ? status
                 : frame_read(&watched->runs, store,
                              "SELECT * FROM run_progress WHERE state = 'running'", NULL, 0, error);
    status = status ? status
                    : frame_read(&watched->surfaces, store,
                                 "SELECT * FROM surface_progress WHERE state = 'running'", NULL, 0,
                                 error);
    watched->run_pulse = calloc(watched->runs.n_rows + 1, sizeof *watched->run_pulse);
    watched->n_processes = calloc(watched->surfaces.n_rows + 1, sizeof *watched->n_processes);
    if (!watched->run_pulse || !watched->n_processes) {
        return error_set(error, STATUS_FAILED, "out of memory");
    }
    status = status ? status : count_processes(watched, store, here, error);
    if (status) {
        return status;
    }
    watched->running = store_has_writer(store, &watched->writer);
    for (size_t i = 0; i < watched->runs.n_rows; i++) {
        watched->run_pulse[i] = pulse(&watched->runs, i, here, now_s, RUN_SILENT_S);
        watched->running |= watched->run_pulse[i] == PULSE_ALIVE;
    }
    for (size_t i = 0; i < watched->surfaces.n_rows; i++) {
        watched->running |= watched->n_processes[i] > 0;
    }
    return STATUS_OK;
}

void watch_release(Watched *watched)
{
    frame_release(&watched->experiments);
    frame_release(&watched->runs);
    frame_release(&watched->surfaces);
    free(watched->run_pulse);
    free(watched->n_processes);
    text_release(&watched->writer);
    *watched = (Watched){0};
}

static double surface_seconds_left(const Watched *watched, size_t i)
{
    const Frame *frame = &watched->surfaces;
    double rows = frame_number(frame, "rows", i) - frame_number(frame, "rows_done", i);
    return watched->n_processes[i] == 0
               ? NAN
               : rows * frame_number(frame, "seconds_per_row", i) / watched->n_processes[i];
}

/* Members of a JSON object: a row of a frame. */
static void add_members(Text *out, const Frame *frame, size_t row)
{
    for (size_t c = 0; c < frame->n_columns; c++) {
        const FrameColumn *column = &frame->columns[c];
        text_add(out, c ? ", " : "");
        text_json_string(out, column->name, strlen(column->name));
        text_add(out, ": ");
        if (column->numeric) {
            text_json_number(out, column->numbers[row]);
        } else if (column->texts[row]) {
            text_json_string(out, column->texts[row], strlen(column->texts[row]));
        } else {
            text_add(out, "null");
        }
    }
}

static void print_json(const Watched *watched, Text *out)
{
    static const char *const pulses[] = {"alive", "silent", "lost"};
    text_printf(out, "{\"at\": %.3f, \"running\": %s, \"writer\": ", watched->at_s,
                watched->running ? "true" : "false");
    if (watched->writer.n) {
        text_json_string(out, watched->writer.bytes, watched->writer.n);
    } else {
        text_add(out, "null");
    }
    text_add(out, ", \"experiments\": [");
    for (size_t i = 0; i < watched->experiments.n_rows; i++) {
        text_add(out, i ? ", {" : "{");
        add_members(out, &watched->experiments, i);
        text_add(out, "}");
    }
    text_add(out, "], \"runs\": [");
    for (size_t i = 0; i < watched->runs.n_rows; i++) {
        text_add(out, i ? ", {" : "{");
        add_members(out, &watched->runs, i);
        text_printf(out, ", \"process\": \"%s\"}", pulses[watched->run_pulse[i]]);
    }
    text_add(out, "], \"surfaces\": [");
    for (size_t i = 0; i < watched->surfaces.n_rows; i++) {
        text_add(out, i ? ", {" : "{");
        add_members(out, &watched->surfaces, i);
        text_printf(out, ", \"processes\": %d, \"seconds_left\": ", watched->n_processes[i]);
        text_json_number(out, surface_seconds_left(watched, i));
        text_add(out, "}");
    }
    text_add(out, "]}\n");
}

/* A number for people, or nothing. */
static void number_cell(Table *table, double value)
{
    table_cell(table, isfinite(value) ? "%.5g" : "", value);
}

static void duration_cell(Table *table, double seconds)
{
    Text text = {0};
    if (isfinite(seconds)) {
        text_duration(&text, seconds);
    }
    table_cell(table, "%s", text_string(&text));
    text_release(&text);
}

typedef struct {
    const char *name;
    bool numeric;
} Column;

/* What matters most comes first: a narrow terminal cuts the rest. */
static void print_runs(const Watched *watched, Text *out)
{
    static const Column columns[] = {{"experiment", false}, {"run", false}, {"step", true},
                                     {"steps", true},       {"left", true}, {"metric", false},
                                     {"last", true},        {"best", true}, {"s/step", true},
                                     {"lr", true},          {"seed", true}, {"process", false}};
    const Frame *runs = &watched->runs;
    Table table = {0};
    for (size_t c = 0; c < sizeof columns / sizeof *columns; c++) {
        table_column(&table, columns[c].name, columns[c].numeric);
    }
    for (size_t i = 0; i < runs->n_rows; i++) {
        Pulse pulse_now = watched->run_pulse[i];
        bool alive = pulse_now == PULSE_ALIVE;
        Text process = {0};
        table_cell(&table, "%s", or_empty(frame_text(runs, "experiment", i)));
        table_cell(&table, "%s", or_empty(frame_text(runs, "run_id", i)));
        number_cell(&table, frame_number(runs, "step", i));
        number_cell(&table, frame_number(runs, "steps", i));
        duration_cell(&table, alive ? frame_number(runs, "seconds_left", i) : NAN);
        table_cell(&table, "%s", or_empty(frame_text(runs, "metric", i)));
        number_cell(&table, frame_number(runs, "value", i));
        number_cell(&table, frame_number(runs, "best", i));
        number_cell(&table, frame_number(runs, "seconds_per_step", i));
        number_cell(&table, frame_number(runs, "lr", i));
        number_cell(&table, frame_number(runs, "seed", i));
        if (pulse_now == PULSE_SILENT) {
            text_add(&process, "silent for ");
            text_duration(&process, watched->at_s - frame_number(runs, "heartbeat_at", i));
        }
        text_printf(&process, "%s%.0f on %s",
                    pulse_now == PULSE_LOST     ? "lost: "
                    : pulse_now == PULSE_SILENT ? ": "
                                                : "",
                    frame_number(runs, "pid", i), or_empty(frame_text(runs, "host", i)));
        table_cell(&table, "%s", text_string(&process));
        text_release(&process);
    }
    table_print(&table, FORMAT_TABLE, out);
    table_release(&table);
}

static void print_surfaces(const Watched *watched, Text *out)
{
    static const Column columns[] = {
        {"experiment", false}, {"surface", false}, {"rows", false}, {"left", true},
        {"metric", false},     {"best", true},     {"at", false},   {"base", true},
        {"processes", false},  {"s/row", true},    {"grid", false}};
    const Frame *surfaces = &watched->surfaces;
    Table table = {0};
    for (size_t c = 0; c < sizeof columns / sizeof *columns; c++) {
        table_column(&table, columns[c].name, columns[c].numeric);
    }
    for (size_t i = 0; i < surfaces->n_rows; i++) {
        double done = frame_number(surfaces, "rows_done", i);
        double previewed = frame_number(surfaces, "rows_previewed", i);
        double best = frame_number(surfaces, "best_value", i);
        table_cell(&table, "%s", or_empty(frame_text(surfaces, "experiment", i)));
        table_cell(&table, "%s", or_empty(frame_text(surfaces, "surface_id", i)));
        table_cell(&table,
                   done == 0 && previewed > 0 ? "%.0f of %.0f, %.0f in preview" : "%.0f of %.0f",
                   done, frame_number(surfaces, "rows", i), previewed);
        duration_cell(&table, surface_seconds_left(watched, i));
        table_cell(&table, "%s", or_empty(frame_text(surfaces, "metric", i)));
        number_cell(&table, best);
        table_cell(&table, isfinite(best) ? "(%.4g, %.4g)" : "",
                   frame_number(surfaces, "best_x", i), frame_number(surfaces, "best_y", i));
        number_cell(&table, frame_number(surfaces, "base_value", i));
        table_cell(&table, watched->n_processes[i] ? "%d" : "lost", watched->n_processes[i]);
        number_cell(&table, frame_number(surfaces, "seconds_per_row", i));
        table_cell(&table, "%s", or_empty(frame_text(surfaces, "grid", i)));
    }
    table_print(&table, FORMAT_TABLE, out);
    table_release(&table);
}

/* Names come from files: control characters become question marks. */
static void make_harmless(Text *text, size_t from)
{
    for (size_t i = from; i < text->n; i++) {
        unsigned char c = (unsigned char)text->bytes[i];
        bool c1 = c >= 0x80 && c < 0xa0 && i > from && (unsigned char)text->bytes[i - 1] == 0xc2;
        if ((c < 0x20 && c != '\n') || c == 0x7f || c1) {
            text->bytes[i] = '?';
        }
    }
}

static void print_people(const Watched *watched, const char *db, Text *out)
{
    time_t at = (time_t)watched->at_s;
    struct tm utc;
    char when[32] = "";
    size_t from = out->n;
    if (gmtime_r(&at, &utc)) {
        strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S UTC", &utc);
    }
    text_printf(out, "%s  \"%s\"", when, db);
    if (watched->writer.n) {
        text_printf(out, ", written to by %s", watched->writer.bytes);
    }
    text_add(out, "\n");
    const Frame *experiments = &watched->experiments;
    for (size_t i = 0; i < experiments->n_rows; i++) {
        text_printf(out, "%s: %.0f of %.0f runs done, %.0f running, %.0f waiting, %.0f failed\n",
                    or_empty(frame_text(experiments, "experiment", i)),
                    frame_number(experiments, "done", i), frame_number(experiments, "runs", i),
                    frame_number(experiments, "running", i),
                    frame_number(experiments, "waiting", i),
                    frame_number(experiments, "failed", i));
    }
    if (watched->runs.n_rows) {
        print_runs(watched, out);
    }
    if (watched->surfaces.n_rows) {
        print_surfaces(watched, out);
    }
    make_harmless(out, from);
}

void watch_print(const Watched *watched, const char *db, bool json, Text *out)
{
    if (json) {
        print_json(watched, out);
    } else {
        print_people(watched, db, out);
    }
}
