/* What the tests of results/ share: a folder of their own with a results.db, questions to it,
 * errors checked by their words. */
#pragma once
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "results/query.h"
#include "results/store.h"

static char folder[64];
static char path[96]; /* of results.db, which is not there yet */

static inline int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/tinylora-store-XXXXXX");
    if (!mkdtemp(folder)) {
        return 1;
    }
    snprintf(path, sizeof path, "%s/results.db", folder);
    return 0;
}

static inline int remove_folder(void **state)
{
    (void)state;
    char command[200];
    snprintf(command, sizeof command, "umount -q %s/small 2>/dev/null; rm -rf %s", folder, folder);
    return system(command);
}

/* call names the variable `error`. */
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

static inline void assert_says(const Error *error, const char *words)
{
    if (!strstr(error->message, words)) {
        fail_msg("\"%s\" lacks \"%s\"", error->message, words);
    }
}

/* The answer of a query as CSV without header; static buffer. */
static inline const char *ask(Store *store, const char *sql)
{
    static Text out;
    Error told = {{0}};
    text_clear(&out);
    if (query_run(store, sql, NULL, 0, FORMAT_CSV, &out, &told) != STATUS_OK) {
        fail_msg("%s: %s", sql, told.message);
    }
    return strstr(text_string(&out), "\r\n") + 2;
}
