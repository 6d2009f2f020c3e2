/* The token of a byte, which a vocabulary needs for each. */
#pragma once
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* token: (8) out. Its length. */
static inline size_t byte_token(char token[8], unsigned byte, bool hex)
{
    bool printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
    unsigned c = printable     ? byte
                 : byte < 0x21 ? 0x100 + byte
                 : byte < 0xa1 ? 0x121 + byte - 0x7f
                               : 0x143; /* GPT-2's alphabet */
    if (hex) {
        return (size_t)snprintf(token, 8, "<0x%02X>", byte);
    }
    if (c < 0x80) {
        return (size_t)snprintf(token, 8, "%c", (char)c);
    }
    return (size_t)snprintf(token, 8, "%c%c", (char)(0xc0 | c >> 6), (char)(0x80 | (c & 63)));
}
