/* One parser for all verbs. */
#include "cli/options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "experiments/model_lock.h"
#include "experiments/nearest.h"

enum { MAX_NAMES = 64 };

/* The value of an option: after '=', or the next word. */
static Status take_value(const char **value, const char *name, const char *inline_value, int argc,
                         char **argv, int *i, Error *error)
{
    if (inline_value) {
        *value = inline_value;
        return STATUS_OK;
    }
    if (*i + 1 >= argc) {
        return error_set(error, STATUS_USAGE, "%s: a value is missing", name);
    }
    *value = argv[++*i];
    return STATUS_OK;
}

static Status set_number(const Option *option, const char *value, Error *error)
{
    char *end;
    errno = 0;
    double number = strtod(value, &end);
    bool whole = option->kind == OPTION_INT;
    if (end == value || *end || errno == ERANGE || !(number >= option->min) ||
        !(number <= option->max) || (whole && number != (double)(int)number)) {
        return error_set(error, STATUS_USAGE,
                         "%s \"%s\": a %snumber from %.15g to %.15g is expected", option->name,
                         value, whole ? "whole " : "", option->min, option->max);
    }
    if (whole) {
        *(int *)option->target = (int)number;
    } else {
        *(double *)option->target = number;
    }
    return STATUS_OK;
}

static Status set_value(const Option *option, const char *value, Error *error)
{
    OptionList *list;
    char *end;
    switch (option->kind) {
    case OPTION_FLAG:
        *(bool *)option->target = true;
        return STATUS_OK;
    case OPTION_TEXT:
        *(const char **)option->target = value;
        return STATUS_OK;
    case OPTION_LIST:
        list = option->target;
        if (list->n == OPTION_LIST_MAX) {
            return error_set(error, STATUS_USAGE, "%s: given more than %d times", option->name,
                             OPTION_LIST_MAX);
        }
        list->values[list->n++] = value;
        return STATUS_OK;
    case OPTION_SEED:
        errno = 0;
        *(uint64_t *)option->target = strtoull(value, &end, 10);
        if (end == value || *end || errno == ERANGE || *value == '-') {
            return error_set(error, STATUS_USAGE, "%s \"%s\": a whole number from 0 is expected",
                             option->name, value);
        }
        return STATUS_OK;
    case OPTION_INT:
    case OPTION_NUMBER:
        return set_number(option, value, error);
    }
    return STATUS_OK;
}

static Status set_format(Cli *cli, const char *value, Error *error)
{
    if (!output_format_find(&cli->format, value)) {
        return error_set(error, STATUS_USAGE, "-o \"%s\": one of table, json, jsonl, csv, md",
                         value);
    }
    cli->format_given = true;
    return STATUS_OK;
}

bool options_global(Cli *cli, int argc, char **argv, int *i, Status *status, Error *error)
{
    const char *format = NULL;
    double max_time_s = 0;
    Option globals[] = {
        {"--db", OPTION_TEXT, &cli->db, 0, 0},
        {"--threads", OPTION_INT, &cli->n_threads, 1, 4096},
        {"--max-time", OPTION_NUMBER, &max_time_s, 0, 1e9},
        {"-o", OPTION_TEXT, &format, 0, 0},
        {"--output", OPTION_TEXT, &format, 0, 0},
        {"--quiet", OPTION_FLAG, &cli->quiet, 0, 0},
        {"-q", OPTION_FLAG, &cli->quiet, 0, 0},
        {"--locked", OPTION_FLAG, &cli->locked, 0, 0},
    };
    *status = STATUS_OK;
    for (size_t j = 0; j < sizeof globals / sizeof globals[0]; j++) {
        const Option *option = &globals[j];
        size_t n = strlen(option->name);
        const char *inline_value = NULL;
        const char *value = ""; /* a flag has none */
        if (strncmp(argv[*i], option->name, n) != 0 || (argv[*i][n] && argv[*i][n] != '=')) {
            continue;
        }
        if (argv[*i][n] == '=') {
            inline_value = argv[*i] + n + 1;
        }
        if (option->kind == OPTION_FLAG && inline_value) {
            *status = error_set(error, STATUS_USAGE, "%s: takes no value", option->name);
        } else if (option->kind != OPTION_FLAG) {
            *status = take_value(&value, option->name, inline_value, argc, argv, i, error);
        }
        *status = *status ? *status : set_value(option, value, error);
        if (!*status && format) {
            *status = set_format(cli, format, error);
        }
        if (!*status) {
            cli_arm_max_time(max_time_s);
        }
        cli->db_given |= option->target == &cli->db;
        return true;
    }
    return false;
}

static Status unknown_option(const Option *options, size_t n_options, const char *word,
                             Error *error)
{
    static const char *const globals[] = {"--db",   "--threads",  "--output", "--quiet",
                                          "--help", "--max-time", "--locked"};
    const char *names[MAX_NAMES];
    size_t n = 0;
    for (; n < n_options && n < MAX_NAMES / 2; n++) {
        names[n] = options[n].name;
    }
    for (size_t i = 0; i < sizeof globals / sizeof globals[0]; i++) {
        names[n++] = globals[i];
    }
    char plain[64];
    size_t length = strcspn(word, "=");
    length = length < sizeof plain ? length : sizeof plain - 1;
    memcpy(plain, word, length);
    plain[length] = 0;
    return error_set(error, STATUS_USAGE, "unknown option \"%s\"; the nearest known one is %s",
                     plain, nearest_name(plain, names, n));
}

Status options_parse(Cli *cli, const Option *options, size_t n_options, int argc, char **argv,
                     const char **positionals, size_t n_positionals, size_t n_required,
                     Error *error)
{
    size_t n = 0;
    bool only_words = false;
    for (size_t i = 0; i < n_positionals; i++) {
        positionals[i] = NULL;
    }
    for (int i = 0; i < argc; i++) {
        Status status;
        if (only_words || argv[i][0] != '-' || !argv[i][1]) {
            if (n == n_positionals) {
                return error_set(error, STATUS_USAGE, "unexpected word \"%s\"", argv[i]);
            }
            positionals[n++] = argv[i];
            continue;
        }
        if (strcmp(argv[i], "--") == 0) {
            only_words = true;
            continue;
        }
        size_t length = strcspn(argv[i], "=");
        const Option *option = NULL;
        for (size_t j = 0; j < n_options && !option; j++) {
            if (strlen(options[j].name) == length &&
                strncmp(options[j].name, argv[i], length) == 0) {
                option = &options[j];
            }
        }
        if (option) {
            const char *inline_value = argv[i][length] ? argv[i] + length + 1 : NULL;
            const char *value = NULL;
            if (option->kind == OPTION_FLAG && inline_value) {
                return error_set(error, STATUS_USAGE, "%s: takes no value", option->name);
            }
            status = option->kind == OPTION_FLAG
                         ? STATUS_OK
                         : take_value(&value, option->name, inline_value, argc, argv, &i, error);
            status = status ? status : set_value(option, value, error);
        } else if (!options_global(cli, argc, argv, &i, &status, error)) {
            status = unknown_option(options, n_options, argv[i], error);
        }
        if (status) {
            return status;
        }
    }
    if (n < n_required) {
        return error_set(error, STATUS_USAGE, "an argument is missing");
    }
    return cli->locked && !cli->lock ? model_lock_open(&cli->lock, MODEL_LOCK, cli->models, error)
                                     : STATUS_OK;
}

void options_add_data(OptionList *overrides, const Cli *cli)
{
    if (cli->data && overrides->n < OPTION_LIST_MAX) {
        overrides->values[overrides->n++] = cli->data;
    }
}
