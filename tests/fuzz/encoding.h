/* What every tokenizer promises of the ids of a text. */
#pragma once
#include <stdlib.h>

#include "core/tokenizer.h"

static inline void check_encoding(const Tokenizer *tokenizer, const char *text, size_t n,
                                  unsigned flags)
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
