/* Any bytes as tokenizer.json, after a NUL a text: refused, or a tokenizer that encodes and decodes
 * the text and the file itself. A vocabulary needs a token for each byte: "@b":0 becomes all of
 * them, as characters, with the ids 0 to 255, and "@h":0 the same as <0x00> ... */
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/byte_token.h"
#include "tests/fuzz/encoding.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/memory.h"

static void expand(Text *out, const uint8_t *bytes, size_t n)
{
    unsigned seen = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned hex = n - i >= 6 && memcmp(bytes + i, "\"@h\":0", 6) == 0;
        bool mark = hex || (n - i >= 6 && memcmp(bytes + i, "\"@b\":0", 6) == 0);
        if (!mark || seen & 1 << hex) {
            text_append(out, (const char *)bytes + i, 1);
            continue;
        }
        for (unsigned byte = 0; byte < 256; byte++) {
            char token[8];
            byte_token(token, byte, hex);
            text_add(out, byte ? "," : "");
            text_json_string(out, token, strlen(token));
            text_printf(out, ":%u", byte);
        }
        seen |= 1 << hex;
        i += 5;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static const char text[] = "Hello  world's 12345 \xc3\xa9\xe6\x97\xa5\n\n<|endoftext|> tail ";
    char path[64];
    Text file = {0};
    Tokenizer *tokenizer;
    const uint8_t *rest;
    size_t n_rest, n_file = first_part(&rest, &n_rest, bytes, n);
    expand(&file, bytes, n_file);
    memory_file(path, text_string(&file), file.n);
    text_release(&file);
    Status status = tokenizer_open(&tokenizer, path, NULL);
    if (status != STATUS_OK) {
        if (status != STATUS_REFUSED) {
            abort();
        }
        return 0;
    }
    check_encoding(tokenizer, text, strlen(text), TOKENIZER_PARSE_SPECIAL | TOKENIZER_ADD_SPECIAL);
    check_encoding(tokenizer, (const char *)rest, n_rest, TOKENIZER_PARSE_SPECIAL);
    check_encoding(tokenizer, (const char *)rest, n_rest, 0);
    check_encoding(tokenizer, (const char *)bytes, n_file < 512 ? n_file : 512, 0);
    tokenizer_bos(tokenizer);
    tokenizer_free(tokenizer);
    return 0;
}
