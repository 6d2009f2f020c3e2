/* tinylora verify */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "cli/options.h"
#include "cli/verbs.h"
#include "core/file.h"
#include "core/model_config.h"
#include "core/safetensors.h"
#include "core/sha256.h"
#include "core/verify.h"
#include "experiments/nearest.h"
#include "rl/dataset.h"

static const char *const kind_names[] = {"model",     "modeldir", "safetensors",
                                         "tokenizer", "config",   "dataset"};
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

static Status verify(const char *path, VerifyKind kind, Error *error)
{
    int n_rows;
    return kind == VERIFY_DATASET && !directory_exists(path) ? dataset_verify(path, &n_rows, error)
                                                             : verify_path(path, kind, error);
}

static Status check_hash(const char *path, const char *expected, Error *error)
{
    char sha256[SHA256_HEX_SIZE] = "", inside[FILE_PATH_MAX];
    SafeTensors *file = NULL;
    Status status = STATUS_OK;
    if (strlen(expected) != SHA256_HEX_SIZE - 1 ||
        strspn(expected, "0123456789abcdefABCDEF") != SHA256_HEX_SIZE - 1) {
        return error_set(error, STATUS_USAGE, "--sha256: 64 hex digits are expected");
    }
    if (directory_exists(path)) {
        status = model_weights_path(inside, path, error);
        status = status ? status : safetensors_open(&file, inside, error);
        if (!status) {
            safetensors_sha256(sha256, file);
            safetensors_close(file);
        }
    } else {
        status = sha256_file(sha256, path, error);
    }
    if (!status && strcasecmp(sha256, expected) != 0) {
        status = error_set(error, STATUS_REFUSED, "\"%s\": its SHA-256 is %s", path, sha256);
    }
    return status;
}

static Status run(Cli *cli, int argc, char **argv, Error *error)
{
    const char *path, *name = NULL, *sha256 = NULL;
    VerifyKind kind;
    const Option options[] = {
        {"--kind", OPTION_TEXT, &name, 0, 0},
        {"--sha256", OPTION_TEXT, &sha256, 0, 0},
    };
    Text out = {0};
    Status status = options_parse(cli, options, 2, argc, argv, &path, 1, 1, error);
    status = status ? status : find_kind(&kind, path, name, error);
    if (!status && sha256) {
        status = check_hash(path, sha256, error);
    }
    status = status ? status : verify(path, kind, error);
    if (status) {
        return status;
    }
    if (cli->format == FORMAT_JSON || cli->format == FORMAT_JSONL) {
        text_add(&out, "{\"path\": ");
        text_json_string(&out, path, strlen(path));
        text_add(&out, ", \"accepted\": true}\n");
    } else {
        text_printf(&out, "%s: accepted\n", path);
    }
    status = cli_write(text_string(&out), out.n, error);
    text_release(&out);
    return status;
}

const Verb verb_verify = {
    .name = "verify",
    .summary = "checks an untrusted file or model directory by every rule",
    .usage = "PATH [--kind model|safetensors|tokenizer|config|dataset] [--sha256 HEX]",
    .help = "Executes nothing; says the first rule broken, exit code 3. A directory is checked "
            "whole.\n\n"
            "  --kind K       what the file should be; else its name tells\n"
            "  --sha256 HEX   what its SHA-256 must be (of a directory: its weights)\n\n"
            "examples:\n"
            "  tinylora verify ../Qwen2.5-0.5B\n"
            "  tinylora verify train.jsonl --kind dataset\n",
    .run = run,
};
