/* Any bytes as tokenizer.json, after a NUL a text: refused, or a tokenizer that encodes and decodes
 * the text and the file itself. */
#include <stdlib.h>
#include <string.h>

#include "core/tokenizer.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/memory.h"

static void encode(const Tokenizer *tokenizer, const char *text, size_t n, unsigned flags)
{
    TokenList ids = {0};
    Text back = {0};
    Status status = tokenizer_encode(tokenizer, text, n, flags, &ids, NULL);
    if (status != STATUS_OK && (status != STATUS_REFUSED || ids.n)) {
        abort();
    }
    for (size_t i = 0; i < ids.n; i++) {
        if (ids.ids[i] < 0 || ids.ids[i] >= tokenizer_size(tokenizer)) {
            abort();
        }
    }
    tokenizer_decode(tokenizer, ids.ids, ids.n, flags != 0, &back);
    text_release(&back);
    token_list_release(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static const char text[] = "Hello  world's 12345 \xc3\xa9\xe6\x97\xa5\n\n<|endoftext|> tail ";
    char path[64];
    Tokenizer *tokenizer;
    const uint8_t *rest;
    size_t n_rest, n_file = first_part(&rest, &n_rest, bytes, n);
    memory_file(path, bytes, n_file);
    Status status = tokenizer_open(&tokenizer, path, NULL);
    if (status != STATUS_OK) {
        if (status != STATUS_REFUSED) {
            abort();
        }
        return 0;
    }
    encode(tokenizer, text, strlen(text), TOKENIZER_PARSE_SPECIAL | TOKENIZER_ADD_SPECIAL);
    encode(tokenizer, (const char *)rest, n_rest, TOKENIZER_PARSE_SPECIAL);
    encode(tokenizer, (const char *)rest, n_rest, 0);
    encode(tokenizer, (const char *)bytes, n_file < 512 ? n_file : 512, 0);
    tokenizer_bos(tokenizer);
    tokenizer_free(tokenizer);
    return 0;
}
