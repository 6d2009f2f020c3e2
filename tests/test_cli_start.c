/* SFT, then GRPO: a run that starts from the scalars of another one; steps from epochs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/cli_run.h"

#define DATA                                                                                       \
    "\"model\": \"abacus\", \"adapter\": {\"budget\": 13}, \"data\": {\"train\": \"" SOURCE_DIR    \
    "/models/abacus/train.jsonl\", \"dev\": \"" SOURCE_DIR "/models/abacus/dev.jsonl\"}, "         \
    "\"eval\": {\"every\": 0, \"rows\": 3}"

static void write_configs(void)
{
    run_write("sft.json",
              "{" DATA ", \"method\": \"sft\", \"steps\": 2, \"optimizer\": {\"lr\": 0.1}}");
    run_write("grpo.json", "{" DATA ", \"steps\": 3, \"optimizer\": {\"lr\": 0.1}, \"grpo\": "
                           "{\"prompts_per_step\": 2, \"group_size\": 4, \"max_new_tokens\": 12}}");
}

static void expect(const char *command, int code, const char *says)
{
    Run r = run(command);
    if (r.code != code || (says && !strstr(code ? r.err : r.out, says))) {
        fail_msg("%s: %d\n%s\n%s", command, r.code, r.out, r.err);
    }
    run_free(&r);
}

/* The id of the one run that the query finds. */
static void id_of(char id[17], const char *where)
{
    char command[300];
    snprintf(command, sizeof command, "query -o json \"SELECT run_id FROM run WHERE %s\"", where);
    Run r = run(command);
    char *at = strstr(r.out, "\"run_id\": \"");
    at = at ? at + 11 : strstr(r.out, "\"run_id\":\"") + 10;
    assert_int_equal(r.code, 0);
    snprintf(id, 17, "%.16s", at);
    run_free(&r);
}

/* 13 floats after the header of 48 bytes */
static void a_run_starts_from_the_scalars_of_another_one(void **state)
{
    (void)state;
    char sft[17], grpo[17], command[400];
    write_configs();
    expect("sft sft.json", 0, "done");
    id_of(sft, "method = 'sft' AND adapter = 'tinylora'");
    snprintf(command, sizeof command, "grpo grpo.json --set start_run=%.6s", sft);
    expect(command, 0, "done");
    id_of(grpo, "method = 'grpo' AND adapter = 'tinylora'");
    snprintf(command, sizeof command,
             "query \"SELECT 'same' AS scalars FROM checkpoint a, checkpoint b WHERE a.run_id = "
             "'%s' AND "
             "a.step = 2 AND b.run_id = '%s' AND b.step = 0 AND "
             "hex(substr(a.bytes, 49, 52)) = hex(substr(b.bytes, 49, 52))\"",
             sft, grpo);
    expect(command, 0, "same");
    expect("grpo grpo.json", 0, "done"); /* another run: it starts at 0 */
    snprintf(command, sizeof command,
             "query \"SELECT count(*) || ' runs' FROM run WHERE method = 'grpo' AND adapter = "
             "'tinylora'\"");
    expect(command, 0, "2 runs");
    snprintf(command, sizeof command, "grpo grpo.json --set start_run=%s --dry-run", sft);
    expect(command, 0, grpo);
    snprintf(command, sizeof command, "replay %s", grpo);
    expect(command, 0, NULL);
    snprintf(command, sizeof command, "show %s", grpo);
    expect(command, 0, sft);
}

static void a_start_that_does_not_fit_is_refused(void **state)
{
    (void)state;
    char sft[17], command[400];
    write_configs();
    expect("--db none.db grpo grpo.json --set start_run=12", 2,
           "start_run: there are no results yet in \"none.db\"");
    expect("grpo grpo.json --set start_sha256=12", 2, "start_sha256: start_run is not given");
    expect("sft sft.json", 0, NULL);
    id_of(sft, "method = 'sft' AND adapter = 'tinylora'");
    expect("grpo grpo.json --set start_run=zz", 2, "start_run: ");
    snprintf(command, sizeof command, "grpo grpo.json --set start_run=%s --set adapter.seed=1",
             sft);
    expect(command, 2, "is of another model or adapter: adapter.seed differs");
    snprintf(command, sizeof command, "grpo grpo.json --set start_run=%s --set start_sha256=12",
             sft);
    expect(command, 3, "start_sha256 is 12");
}

static void epochs_make_steps(void **state)
{
    (void)state;
    write_configs();
    run_write("rows.jsonl", "{\"question\": \"1+1=\", \"answer\": \"2\"}\n"
                            "{\"question\": \"1+2=\", \"answer\": \"3\"}\n"
                            "{\"question\": \"2+2=\", \"answer\": \"4\"}\n");
    expect("sft sft.json --set data.train=rows.jsonl --set sft.batch_size=2 --set epochs=2 "
           "--dry-run -o csv",
           0, ",3,13,0.1,");
    expect("sft sft.json --set data.train=rows.jsonl --set sft.batch_size=2 --set epochs=2.1 "
           "--dry-run -o csv",
           0, ",4,13,0.1,");
    expect("grpo grpo.json --set data.train=rows.jsonl --set epochs=1 --dry-run -o csv", 0,
           ",2,13,0.1,");
    expect("sft sft.json --set data.train=rows.jsonl --set sft.batch_size=1 --set epochs=1e6 "
           "--set steps=1 --dry-run -o csv",
           0, ",3000000,13,0.1,");
    expect("sft sft.json --set epochs=1e6 --set sft.batch_size=1 --dry-run", 2,
           "epochs: 1e+06 of them are 4000000000 steps, at most 1e7");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_run_starts_from_the_scalars_of_another_one),
        cmocka_unit_test(a_start_that_does_not_fit_is_refused),
        cmocka_unit_test(epochs_make_steps),
    };
    return cmocka_run_group_tests(tests, run_setup, run_teardown);
}
