/* GPT-2's alphabet: the printable characters of Latin-1 stand for themselves, the other 68 bytes
 * for U+0100 and on (Radford et al. 2019, bytes_to_unicode). */
#include "core/tokenizer_private.h"

#include <string.h>

static bool is_printable(int byte)
{
    return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

/* The bytes that stand at U+0100 + i: 00..20, 7f..a0, ad. */
int tokenizer_char_byte(int32_t c)
{
    if (c < 0x100) {
        return is_printable(c) ? c : -1;
    }
    int i = c - 0x100;
    if (i <= 0x20) {
        return i;
    }
    if (i <= 0x42) {
        return i - 0x21 + 0x7f;
    }
    return i == 0x43 ? 0xad : -1;
}

int32_t tokenizer_byte_char(uint8_t byte)
{
    if (is_printable(byte)) {
        return byte;
    }
    return 0x100 + (byte <= 0x20 ? byte : byte <= 0xa0 ? byte - 0x7f + 0x21 : 0x43);
}

bool tokenizer_token_bytes(Text *out, const char *token, size_t n)
{
    size_t before = out->n;
    for (size_t i = 0; i < n;) {
        int32_t c;
        size_t length = utf8_decode(&c, token + i, n - i);
        int byte = length ? tokenizer_char_byte(c) : -1;
        if (byte < 0) {
            out->n = before;
            return false;
        }
        char one = (char)byte;
        text_append(out, &one, 1);
        i += length;
    }
    return true;
}

void tokenizer_bytes_token(Text *out, const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        int32_t c = tokenizer_byte_char((uint8_t)bytes[i]);
        if (c < 0x80) {
            char one = (char)c;
            text_append(out, &one, 1);
        } else {
            char two[2] = {(char)(0xc0 | c >> 6), (char)(0x80 | (c & 0x3f))};
            text_append(out, two, 2);
        }
    }
}
