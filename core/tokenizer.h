/* tokenizer.json (Hugging Face), or a GGUF file's metadata: byte-level BPE and SentencePiece-style BPE. Splits with
 * hand-written scanners for the known patterns; never runs a regular expression from a file. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/status.h"
#include "core/text.h"

typedef struct Tokenizer Tokenizer;

typedef struct {
    int32_t *ids;
    size_t n;
    size_t capacity;
} TokenList;
void token_list_release(TokenList *list);
void token_list_add(TokenList *list, int32_t id);

enum {
    /* Special tokens written in the text become their ids; without it they stay text. Added tokens
     * that are not special are always found. */
    TOKENIZER_PARSE_SPECIAL = 1,
    /* What the post-processor adds: BOS, EOS. */
    TOKENIZER_ADD_SPECIAL = 2,
    /* The text stands inside a longer one: what a pre-tokenizer does at the very beginning alone
     * (Metaspace with prepend_scheme "first") is left out. */
    TOKENIZER_INSIDE = 4
};

/* Errors: STATUS_REFUSED naming the file and the rule; e.g. a model that is not BPE, an unknown
 * pre-tokenizer. */
Status tokenizer_open(Tokenizer **tokenizer, const char *path, Error *error);
void tokenizer_free(Tokenizer *tokenizer);
/* Of the bytes of the file that was read, in hex. */
const char *tokenizer_sha256(const Tokenizer *tokenizer);
/* Appends to ids. text: (n) bytes. Errors, with nothing appended: STATUS_REFUSED for invalid UTF-8
 * and for a character or byte that the file has no token for. Ids are those of Hugging Face
 * `tokenizers` 0.23, but for combining marks whose order its NFC tables (older than Unicode 12) do
 * not know. */
Status tokenizer_encode(const Tokenizer *tokenizer, const char *text, size_t n, unsigned flags,
                        TokenList *ids, Error *error);
/* Appends the text of ids, as the file's decoder says. skip_special drops special tokens. The bytes
 * may be invalid UTF-8 in the middle of a character; callers that need text pass it through
 * text_json_string or keep the bytes. */
void tokenizer_decode(const Tokenizer *tokenizer, const int32_t *ids, size_t n, bool skip_special,
                      Text *out);
/* The most bytes by which a text may be shorter than its tokens' own, for what a decoder strips off
 * its ends. The end of a text is the text of its last tokens, but for so many bytes at their front.
 */
size_t tokenizer_hidden(const Tokenizer *tokenizer);
/* Largest id + 1. */
int32_t tokenizer_size(const Tokenizer *tokenizer);
/* Of a token as written in the file, added tokens too; -1 when absent. */
int32_t tokenizer_id(const Tokenizer *tokenizer, const char *token);
/* As written in the file; NULL when absent. */
const char *tokenizer_token(const Tokenizer *tokenizer, int32_t id);
/* The id that the post-processor puts first, or -1. */
int32_t tokenizer_bos(const Tokenizer *tokenizer);
/* For a caller who has the config: STATUS_REFUSED when an id has no row in the embedding. */
Status tokenizer_check_vocab(const Tokenizer *tokenizer, int vocab_size, Error *error);
