/* A tokenizer for readers of text: <unk>, the bytes, and the special tokens of chat templates. */
#pragma once
#include <stdlib.h>

#include "core/tokenizer.h"
#include "tests/fuzz/memory.h"

enum { SMALL_SPECIAL = 257 }; /* the first id of a special token */

static const char *const small_specials[] = {"<s>",
                                             "</s>",
                                             "<|im_start|>",
                                             "<|im_end|>",
                                             "<|begin_of_text|>",
                                             "<|end_of_text|>",
                                             "<|eot_id|>",
                                             "<|start_header_id|>",
                                             "<|end_header_id|>"};

static inline Tokenizer *small_tokenizer(void)
{
    enum { N_SPECIAL = sizeof small_specials / sizeof *small_specials };
    char path[64];
    Text json = {0};
    Tokenizer *tokenizer;
    text_add(&json, "{\"version\": \"1.0\", \"added_tokens\": [");
    for (int i = 0; i < N_SPECIAL; i++) {
        text_printf(
            &json,
            "%s{\"id\": %d, \"content\": \"%s\", \"single_word\": false, \"lstrip\": false, "
            "\"rstrip\": false, \"normalized\": false, \"special\": true}",
            i ? "," : "", SMALL_SPECIAL + i, small_specials[i]);
    }
    text_add(&json,
             "], \"model\": {\"type\": \"BPE\", \"unk_token\": \"<unk>\", \"fuse_unk\": true, "
             "\"byte_fallback\": true, \"merges\": [], \"vocab\": {\"<unk>\": 0");
    for (unsigned i = 0; i < 256; i++) {
        text_printf(&json, ", \"<0x%02X>\": %u", i, i + 1);
    }
    text_add(&json, "}}, \"decoder\": {\"type\": \"Sequence\", \"decoders\": ["
                    "{\"type\": \"ByteFallback\"}, {\"type\": \"Fuse\"}]}}");
    memory_file(path, text_string(&json), json.n);
    text_release(&json);
    Error error = {{0}};
    if (tokenizer_open(&tokenizer, path, &error) != STATUS_OK) {
        fprintf(stderr, "%s\n", error.message);
        abort();
    }
    return tokenizer;
}
