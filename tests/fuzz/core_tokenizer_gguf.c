/* Lines as a GGUF file (gguf_lines.h), after a NUL a text: refused, or a tokenizer, by way of JSON,
 * that encodes and decodes the text and the lines. */
#include "core/tokenizer_gguf.h"

#include "core/json.h"
#include "tests/fuzz/encoding.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/gguf_lines.h"
#include "tests/fuzz/memory.h"

/* What the metadata becomes is JSON. status: of who reads that. */
static void check_json(const Text *file, Status status)
{
    Gguf *gguf;
    Text json = {0};
    Status made = gguf_parse(&gguf, file->bytes, file->n, NULL);
    if (made == STATUS_OK) {
        made = tokenizer_gguf_json(&json, gguf, NULL);
        gguf_close(gguf);
    }
    char path[64], sha256[SHA256_HEX_SIZE];
    memory_file(path, text_string(&json), json.n);
    if (made == STATUS_OK ? json_check(sha256, path, json.n, NULL) != STATUS_OK
                          : made != STATUS_REFUSED || status == STATUS_OK) {
        abort();
    }
    text_release(&json);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    char path[64];
    Text file = {0};
    Tokenizer *tokenizer;
    const uint8_t *rest;
    size_t n_rest, n_lines = first_part(&rest, &n_rest, bytes, n);
    gguf_of_lines(&file, bytes, n_lines);
    memory_file(path, file.bytes, file.n);
    Status status = tokenizer_open(&tokenizer, path, NULL);
    if (status == STATUS_OK) {
        check_encoding(tokenizer, (const char *)rest, n_rest,
                       TOKENIZER_PARSE_SPECIAL | TOKENIZER_ADD_SPECIAL);
        check_encoding(tokenizer, (const char *)rest, n_rest, 0);
        check_encoding(tokenizer, (const char *)bytes, n_lines < 512 ? n_lines : 512, 0);
        tokenizer_bos(tokenizer);
        tokenizer_free(tokenizer);
    } else if (status != STATUS_REFUSED) {
        abort();
    }
    if (status == STATUS_OK || n % 8 == 0) { /* it takes as long again */
        check_json(&file, status);
    }
    text_release(&file);
    return 0;
}
