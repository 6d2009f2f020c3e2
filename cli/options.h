/* Command lines: long options, the global ones among them, and positional words. */
#pragma once
#include "cli/cli.h"

typedef enum {
    OPTION_FLAG,   /* bool */
    OPTION_TEXT,   /* const char * */
    OPTION_INT,    /* int, min..max */
    OPTION_SEED,   /* uint64_t */
    OPTION_NUMBER, /* double, min..max */
    OPTION_LIST    /* OptionList, may come again */
} OptionKind;

enum { OPTION_LIST_MAX = 64 };
typedef struct {
    const char *values[OPTION_LIST_MAX];
    size_t n;
} OptionList;

typedef struct {
    const char *name; /* "--model" */
    OptionKind kind;
    void *target; /* written when the option is there */
    double min, max;
} Option;

/* Options anywhere, "--" ends them; "--name value" and "--name=value". positionals:
 * (n_positionals), NULL where absent, of which the first n_required must be there. Errors:
 * STATUS_USAGE, with the nearest known option. */
Status options_parse(Cli *cli, const Option *options, size_t n_options, int argc, char **argv,
                     const char **positionals, size_t n_positionals, size_t n_required,
                     Error *error);

/* $TINYLORA_DATA as the last of a config's overrides. */
void options_add_data(OptionList *overrides, const Cli *cli);

/* One global option at argv[*i], moving *i past its value; false when it is none. */
bool options_global(Cli *cli, int argc, char **argv, int *i, Status *status, Error *error);
