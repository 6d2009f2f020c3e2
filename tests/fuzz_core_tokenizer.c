/* Any bytes as tokenizer.json: refused, or a tokenizer that encodes and decodes. */
#include <stdlib.h>
#include <string.h>

#include "core/tokenizer.h"
#include "tests/fuzz.h"
#include "tests/fuzz_memory_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static const char text[] = "Hello  world's 12345 \xc3\xa9\xe6\x97\xa5\n\n<|endoftext|> tail ";
    char path[64];
    Tokenizer *tokenizer;
    memory_file(path, bytes, n);
    Status status = tokenizer_open(&tokenizer, path, NULL);
    if (status != STATUS_OK) {
        if (status != STATUS_REFUSED) {
            abort();
        }
        return 0;
    }
    TokenList ids = {0};
    Text back = {0};
    unsigned flags = TOKENIZER_PARSE_SPECIAL | TOKENIZER_ADD_SPECIAL;
    if (tokenizer_encode(tokenizer, text, strlen(text), flags, &ids, NULL) == STATUS_OK) {
        for (size_t i = 0; i < ids.n; i++) {
            if (ids.ids[i] < 0 || ids.ids[i] >= tokenizer_size(tokenizer)) {
                abort();
            }
        }
        tokenizer_decode(tokenizer, ids.ids, ids.n, false, &back);
    }
    text_release(&back);
    token_list_release(&ids);
    tokenizer_free(tokenizer);
    return 0;
}
