/* Any bytes as tokenizer.json, after a NUL a text: refused, or a tokenizer that encodes and decodes
 * the text and the file itself. A vocabulary needs a token for each byte: "@b":0 becomes all of
 * them, as characters, with the ids 0 to 255, and "@h":0 the same as <0x00> ... */
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/byte_token.h"
#include "tests/fuzz/encoding.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/memory.h"

static void add_byte_tokens(Text *out, bool hex)
{
    static Text tokens[2];
    for (unsigned byte = 0, made = tokens[hex].n > 0; byte < 256 && !made; byte++) {
        char token[8];
        byte_token(token, byte, hex);
        text_add(&tokens[hex], byte ? "," : "");
        text_json_string(&tokens[hex], token, strlen(token));
        text_printf(&tokens[hex], ":%u", byte);
    }
    text_append(out, tokens[hex].bytes, tokens[hex].n);
}

/* The first of each mark. */
static void expand(Text *out, const char *bytes, size_t n)
{
    enum { LENGTH = 6 };
    const char *mark[] = {memmem(bytes, n, "\"@b\":0", LENGTH),
                          memmem(bytes, n, "\"@h\":0", LENGTH)};
    bool hex_first = mark[1] && (!mark[0] || mark[1] < mark[0]);
    const char *at = bytes;
    for (int i = 0; i < 2; i++) {
        bool hex = hex_first != (i == 1);
        if (mark[hex]) {
            text_append(out, at, (size_t)(mark[hex] - at));
            add_byte_tokens(out, hex);
            at = mark[hex] + LENGTH;
        }
    }
    text_append(out, at, (size_t)(bytes + n - at));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static const char text[] = "Hello  world's 12345 \xc3\xa9\xe6\x97\xa5\n\n<|endoftext|> tail ";
    char path[64];
    Text file = {0};
    Tokenizer *tokenizer;
    const uint8_t *rest;
    size_t n_rest, n_file = first_part(&rest, &n_rest, bytes, n);
    expand(&file, (const char *)bytes, n_file);
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
