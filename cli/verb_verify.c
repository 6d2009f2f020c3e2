/* tinylora verify */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "cli/child.h"
#include "cli/options.h"
#include "cli/sandbox.h"
#include "cli/verbs.h"
#include "core/file.h"
#include "core/gguf.h"
#include "core/sha256.h"
#include "core/verify.h"
#include "experiments/config.h"
#include "experiments/model_lock.h"
#include "experiments/nearest.h"
#include "results/store.h"
#include "rl/dataset.h"

static const char *const kind_names[] = {"model", "modeldir",  "safetensors",
                                         "gguf",  "tokenizer", "config",
                                         "json",  "dataset",   "results_db"};
enum { N_KINDS = sizeof kind_names / sizeof kind_names[0] };

static Status find_kind(VerifyKind *kind, const char *path, const char *name, Error *error)
{
    if (name && !verify_kind_find(kind, name)) {
        return error_set(error, STATUS_USAGE, "--kind \"%s\": the nearest known one is \"%s\"",
                         name, nearest_name(name, kind_names, N_KINDS));
    }
    if (!name && !verify_kind_guess(kind, path)) {
        return error_set(error, STATUS_USAGE,
                         "\"%s\": its kind cannot be seen from its name; use --kind", path);
    }
    return STATUS_OK;
}

typedef struct {
    const char *path, *sha256; /* what it must be; NULL: anything */
    VerifyKind kind;
    bool hashed, shown, locking; /* hashes are made, printed, pinned */
    /* Answers: */
    Sandbox sandbox;
    ModelFiles files;
} Check;

static const char *base_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static Status check_hash(const Check *check, Error *error)
{
    const char *sha256 =
        directory_exists(check->path) ? check->files.weights_sha256 : check->files.files[0].sha256;
    return strcasecmp(sha256, check->sha256) == 0
               ? STATUS_OK
               : error_set(error, STATUS_REFUSED, "\"%s\": its SHA-256 is %s", check->path, sha256);
}

static Status verify_results(const char *path, Error *error)
{
    Store *store;
    bool sound = true;
    Text report = {0}, log = {0};
    text_printf(&log, "%s-wal", path);
    bool in_use = file_exists(text_string(&log));
    text_release(&log);
    if (in_use) { /* SQLite would write to what is beside it */
        return error_set(error, STATUS_FAILED,
                         "\"%s\": has a -wal file beside it, so it is in use or was cut off; "
                         "`tinylora --db %s db check` reads both",
                         path, path);
    }
    Status status = store_open(&store, path, STORE_READ, 0, error);
    if (status) {
        return status;
    }
    status = store_check(store, &sound, &report, error);
    if (!status && !sound) {
        status = error_set(error, STATUS_REFUSED,
                           "\"%s\": is damaged; `tinylora --db %s db check` tells how", path, path);
    }
    store_close(store);
    text_release(&report);
    return status;
}

/* From here on this process can only read. */
static Status work(void *context, Error *error)
{
    Check *check = context;
    ModelFiles *files = check->hashed ? &check->files : NULL;
    bool file = !directory_exists(check->path);
    char sha256[SHA256_HEX_SIZE] = "";
    Status status = sandbox_for_model(&check->sandbox, check->path, error);
    if (!status && check->kind == VERIFY_DATASET && file) {
        status = dataset_verify(check->path, NULL, sha256, error);
    } else if (!status && check->kind == VERIFY_RESULTS && file) {
        status = verify_results(check->path, error);
        status = !status && files ? sha256_file(sha256, check->path, error) : status;
    } else if (!status) {
        status = verify_path(check->path, check->kind, files, error);
    }
    if (!status && files && *sha256) {
        status = model_files_add(files, base_name(check->path), sha256, error);
    }
    return !status && check->sha256 ? check_hash(check, error) : status;
}

static void print_files(const ModelFiles *files, bool json, Text *out)
{
    text_add(out, json ? ", \"files\": {" : "");
    for (size_t i = 0; i < files->n; i++) {
        const ModelFile *file = &files->files[i];
        if (json) {
            text_add(out, i ? ", " : "");
            text_json_string(out, file->name, strlen(file->name));
            text_printf(out, ": \"%s\"", file->sha256);
        } else {
            text_printf(out, "%s  %s\n", file->sha256, file->name);
        }
    }
    text_add(out, json ? "}" : "");
}

static void print(const Cli *cli, const Check *check, Text *out)
{
    bool json = cli->format == FORMAT_JSON || cli->format == FORMAT_JSONL;
    if (json) {
        text_add(out, "{\"path\": ");
        text_json_string(out, check->path, strlen(check->path));
        text_add(out, ", \"accepted\": true, \"sandbox\": ");
        sandbox_json(&check->sandbox, out);
    } else {
        text_printf(out, "%s: accepted%s\n", check->path,
                    check->locking ? ", pinned in " MODEL_LOCK : "");
    }
    if (check->shown) {
        print_files(&check->files, json, out);
    }
    text_add(out, json ? "}\n" : "");
    if (!check->sandbox.landlock) {
        cli_note(cli, "this kernel has no Landlock: the files were read without it");
    }
}

static bool is_model(const char *path)
{
    return directory_exists(path) || gguf_is(path);
}

/* PATH, or a model by its name; the check is of where it lies. */
static Status find_path(Cli *cli, Check *check, char found[CONFIG_PATH], const char *typed,
                        Error *error)
{
    Status status = STATUS_OK;
    check->path = typed;
    if ((!file_exists(typed) || directory_exists(typed)) &&
        (check->locking || model_find(found, typed, cli->models, NULL) == 0)) {
        status = model_find(found, typed, cli->models, error);
        check->path = found;
    }
    if (!status && cli->lock && is_model(check->path)) {
        check->hashed = true;
        status = model_lock_check(cli->lock, check->path, error);
    }
    return status;
}

/* What was parsed is what is pinned; or becomes it. */
static Status hold_against_lock(const Cli *cli, const Check *check, const char *typed, Error *error)
{
    Status status = STATUS_OK;
    if (cli->lock && is_model(check->path)) {
        for (size_t i = 0; i < check->files.n && !status; i++) {
            status = model_lock_confirm(cli->lock, check->path, check->files.files[i].name,
                                        check->files.files[i].sha256, error);
        }
    }
    if (!status && check->locking) {
        status = model_lock_write(MODEL_LOCK, typed, check->path, &check->files, error);
    }
    return status;
}

static Status check_options(const Check *check, const Cli *cli, Error *error)
{
    if (check->sha256 && (strlen(check->sha256) != SHA256_HEX_SIZE - 1 ||
                          strspn(check->sha256, "0123456789abcdefABCDEF") != SHA256_HEX_SIZE - 1)) {
        return error_set(error, STATUS_USAGE, "--sha256: 64 hex digits are expected");
    }
    if (check->locking && cli->lock) {
        return error_set(error, STATUS_USAGE, "--lock and --locked exclude each other");
    }
    return STATUS_OK;
}

/* check: in memory that a process shares. */
static Status run_check(Cli *cli, Check *check, int argc, char **argv, Error *error)
{
    const char *typed, *name = NULL;
    char found[CONFIG_PATH];
    double peak_mib;
    const Option options[] = {
        {"--kind", OPTION_TEXT, &name, 0, 0},
        {"--sha256", OPTION_TEXT, &check->sha256, 0, 0},
        {"--hashes", OPTION_FLAG, &check->shown, 0, 0},
        {"--lock", OPTION_FLAG, &check->locking, 0, 0},
    };
    Text out = {0};
    Status status = options_parse(cli, options, 4, argc, argv, &typed, 1, 1, error);
    status = status ? status : check_options(check, cli, error);
    status = status ? status : find_path(cli, check, found, typed, error);
    status = status ? status : find_kind(&check->kind, check->path, name, error);
    if (!status && check->locking && !is_model(check->path)) {
        status = error_set(error, STATUS_USAGE, "--lock: \"%s\" is no model", typed);
    }
    if (!status) {
        check->hashed |= check->shown || check->sha256 || check->locking;
        /* What writes the lock must not be confined: another process reads. */
        status = check->locking ? child_run(&peak_mib, work, check, error) : work(check, error);
    }
    status = status ? status : hold_against_lock(cli, check, typed, error);
    if (!status) {
        print(cli, check, &out);
        status = cli_write(text_string(&out), out.n, error);
    }
    text_release(&out);
    return status;
}

static Status run(Cli *cli, int argc, char **argv, Error *error)
{
    Check *check = child_memory(sizeof *check);
    if (!check) {
        return error_set(error, STATUS_FAILED, "out of memory");
    }
    Status status = run_check(cli, check, argc, argv, error);
    child_memory_release(check, sizeof *check);
    return status;
}

const Verb verb_verify = {
    .name = "verify",
    .summary = "checks an untrusted file or model directory by every rule",
    .usage = "PATH [--kind model|safetensors|gguf|tokenizer|config|json|dataset|results_db] "
             "[--sha256 HEX] [--hashes] [--lock]",
    .help = "Executes nothing; says the first rule broken, exit code 3. A directory is checked "
            "whole.\nWhat it reads it reads in a sandbox: it can write nothing, start nothing, "
            "open no socket.\n\n"
            "  --kind K       what the file should be; else its name tells\n"
            "  --sha256 HEX   what its SHA-256 must be (of a directory: its weights)\n"
            "  --hashes       print the SHA-256 of every file that was read\n"
            "  --lock         of a model: pin these hashes in ./models.lock, which the option\n"
            "                 --locked of every verb then holds its model against\n\n"
            "examples:\n"
            "  tinylora verify ../Qwen2.5-0.5B\n"
            "  tinylora verify Qwen/Qwen2.5-0.5B-Instruct --lock\n"
            "  tinylora verify train.jsonl --kind dataset\n",
    .run = run,
};
