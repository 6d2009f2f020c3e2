/* Lines as a GGUF file (gguf_lines.h), after a NUL a text: refused, or a tokenizer, by way of JSON,
 * that encodes and decodes the text and the lines. */
#include "core/tokenizer_gguf.h"

#include "core/json.h"
#include "tests/fuzz/encoding.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/gguf_lines.h"
#include "tests/fuzz/memory.h"

/* Is there one, as far as the metadata says? */
static Status read_json(const Text *file)
{
    Gguf *gguf;
    Text json = {0};
    Status status = gguf_parse(&gguf, file->bytes, file->n, NULL);
    if (status == STATUS_OK) {
        status = tokenizer_gguf_json(&json, gguf, NULL);
        gguf_close(gguf);
    }
    char path[64], sha256[SHA256_HEX_SIZE];
    memory_file(path, text_string(&json), json.n);
    if (status == STATUS_OK && json_check(sha256, path, json.n, NULL) != STATUS_OK) {
        abort();
    }
    text_release(&json);
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    char path[64];
    Text file = {0};
    Tokenizer *tokenizer;
    const uint8_t *rest;
    size_t n_rest, n_lines = first_part(&rest, &n_rest, bytes, n);
    gguf_of_lines(&file, bytes, n_lines);
    Status of_json = read_json(&file);
    memory_file(path, file.bytes, file.n);
    text_release(&file);
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
    if (of_json != STATUS_OK && (status == STATUS_OK || of_json != STATUS_REFUSED)) {
        abort();
    }
    return 0;
}
