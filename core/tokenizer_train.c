/* Byte pair encoding learnt from counts of words (Sennrich et al. 2016, algorithm 1). */
#include "core/tokenizer_train.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/tokenizer_private.h"

typedef struct {
    uint32_t at, n; /* symbols in Trainer.symbols; n shrinks as pairs are merged */
    int64_t count;
} Word;

typedef struct {
    int32_t left, right; /* left -1: free */
    int64_t count;
} Pair;

typedef struct {
    const TokenizerTraining *training;
    int32_t *symbols;
    size_t n_symbols, symbol_capacity;
    Word *words;
    size_t n_words, word_capacity;
    uint32_t
        *word_slots; /* index + 1, by the word's bytes; symbols are bytes until merging begins */
    size_t n_word_slots;
    Pair *pairs;
    size_t n_pairs, n_pair_slots;
    Text bytes;   /* of all tokens, one after the other */
    Span *tokens; /* (n_tokens) */
    int32_t n_tokens;
    int32_t (*merges)[2];
    int32_t n_merges;
    size_t merge_capacity;
} Trainer;

/* Room for `need` elements; growth doubles. Text sizes bound all of it, as in core/text.c. */
static void *grow(void *array, size_t *capacity, size_t need, size_t size)
{
    if (need <= *capacity) {
        return array;
    }
    size_t larger = *capacity ? *capacity : 256;
    while (larger < need) {
        larger *= 2;
    }
    array = realloc(array, larger * size);
    if (!array) {
        abort();
    }
    *capacity = larger;
    return array;
}

static void *zeros(size_t n, size_t size)
{
    void *array = calloc(n, size);
    if (!array) {
        abort();
    }
    return array;
}

static uint64_t mix(uint64_t h)
{
    h *= 0x9e3779b97f4a7c15u;
    h ^= h >> 32;
    return h * 0x9e3779b97f4a7c15u >> 20;
}

/* ---- words --------------------------------------------------------------------------------- */

static uint64_t hash_symbols(const int32_t *symbols, size_t n)
{
    uint64_t h = n;
    for (size_t i = 0; i < n; i++) {
        h = mix(h ^ (uint64_t)(uint32_t)symbols[i]);
    }
    return h;
}

static void rehash_words(Trainer *trainer, size_t n_slots)
{
    free(trainer->word_slots);
    trainer->word_slots = zeros(n_slots, sizeof *trainer->word_slots);
    trainer->n_word_slots = n_slots;
    for (size_t w = 0; w < trainer->n_words; w++) {
        const Word *word = &trainer->words[w];
        size_t i = hash_symbols(trainer->symbols + word->at, word->n) & (n_slots - 1);
        while (trainer->word_slots[i]) {
            i = (i + 1) & (n_slots - 1);
        }
        trainer->word_slots[i] = (uint32_t)w + 1;
    }
}

static void count_word(Trainer *trainer, const char *bytes, size_t n)
{
    trainer->symbols = grow(trainer->symbols, &trainer->symbol_capacity, trainer->n_symbols + n,
                            sizeof *trainer->symbols);
    int32_t *symbols = trainer->symbols + trainer->n_symbols;
    for (size_t i = 0; i < n; i++) {
        symbols[i] = (unsigned char)bytes[i];
    }
    if (2 * (trainer->n_words + 1) > trainer->n_word_slots) {
        rehash_words(trainer, trainer->n_word_slots ? 2 * trainer->n_word_slots : 1024);
    }
    size_t mask = trainer->n_word_slots - 1, i = hash_symbols(symbols, n) & mask;
    for (; trainer->word_slots[i]; i = (i + 1) & mask) {
        Word *word = &trainer->words[trainer->word_slots[i] - 1];
        if (word->n == n &&
            memcmp(trainer->symbols + word->at, symbols, n * sizeof *symbols) == 0) {
            word->count++;
            return;
        }
    }
    trainer->words =
        grow(trainer->words, &trainer->word_capacity, trainer->n_words + 1, sizeof *trainer->words);
    trainer->words[trainer->n_words++] = (Word){(uint32_t)trainer->n_symbols, (uint32_t)n, 1};
    trainer->word_slots[i] = (uint32_t)trainer->n_words;
    trainer->n_symbols += n;
}

static void count_pieces(Trainer *trainer, const char *text, size_t n)
{
    for (size_t i = 0; i < n;) {
        size_t length = tokenizer_split_next(SPLIT_GPT2, text + i, n - i);
        count_word(trainer, text + i, length);
        i += length;
    }
}

static Status count_words(Trainer *trainer, const char *const *texts, size_t n_texts, Error *error)
{
    size_t total = 0;
    for (size_t t = 0; t < n_texts; t++) {
        size_t n = strlen(texts[t]), valid = utf8_valid_prefix(texts[t], n);
        if (valid < n) {
            return error_set(error, STATUS_REFUSED, "text %zu is not UTF-8 at byte %zu", t, valid);
        }
        total += n;
        if (total > TOKENIZER_MAX_TEXT) {
            return error_set(error, STATUS_REFUSED, "the texts exceed %d bytes",
                             TOKENIZER_MAX_TEXT);
        }
        for (size_t i = 0; i < n;) {
            size_t length = n - i;
            if (trainer->training->single_digits) {
                length = tokenizer_split_next(SPLIT_DIGITS, texts[t] + i, n - i);
            }
            count_pieces(trainer, texts[t] + i, length);
            i += length;
        }
    }
    return STATUS_OK;
}

/* ---- pairs --------------------------------------------------------------------------------- */

static Pair *pair_slot(Pair *pairs, size_t n_slots, int32_t left, int32_t right)
{
    size_t i = mix((uint64_t)(uint32_t)left << 32 | (uint32_t)right) & (n_slots - 1);
    while (pairs[i].left >= 0 && (pairs[i].left != left || pairs[i].right != right)) {
        i = (i + 1) & (n_slots - 1);
    }
    return &pairs[i];
}

static void grow_pairs(Trainer *trainer)
{
    size_t n_slots = trainer->n_pair_slots ? 2 * trainer->n_pair_slots : 4096;
    Pair *pairs = zeros(n_slots, sizeof *pairs);
    for (size_t i = 0; i < n_slots; i++) {
        pairs[i].left = -1;
    }
    for (size_t i = 0; i < trainer->n_pair_slots; i++) {
        const Pair *pair = &trainer->pairs[i];
        if (pair->left >= 0) {
            *pair_slot(pairs, n_slots, pair->left, pair->right) = *pair;
        }
    }
    free(trainer->pairs);
    trainer->pairs = pairs;
    trainer->n_pair_slots = n_slots;
}

/* Adds sign x count to each adjacent pair of the word. */
static void count_pairs(Trainer *trainer, const Word *word, int sign)
{
    const int32_t *symbols = trainer->symbols + word->at;
    for (uint32_t i = 0; i + 1 < word->n; i++) {
        if (2 * (trainer->n_pairs + 1) > trainer->n_pair_slots) {
            grow_pairs(trainer);
        }
        Pair *pair = pair_slot(trainer->pairs, trainer->n_pair_slots, symbols[i], symbols[i + 1]);
        if (pair->left < 0) {
            *pair = (Pair){symbols[i], symbols[i + 1], 0};
            trainer->n_pairs++;
        }
        pair->count += sign * word->count;
    }
}

static Pair best_pair(const Trainer *trainer)
{
    Pair best = {-1, -1, 1};
    for (size_t i = 0; i < trainer->n_pair_slots; i++) {
        const Pair *pair = &trainer->pairs[i];
        if (pair->left < 0 || pair->count < best.count || pair->count < 2) {
            continue;
        }
        if (pair->count > best.count || pair->left < best.left ||
            (pair->left == best.left && pair->right < best.right)) {
            best = *pair;
        }
    }
    return best;
}

/* ---- merging ------------------------------------------------------------------------------- */

static bool has_pair(const int32_t *symbols, uint32_t n, int32_t left, int32_t right)
{
    for (uint32_t i = 0; i + 1 < n; i++) {
        if (symbols[i] == left && symbols[i + 1] == right) {
            return true;
        }
    }
    return false;
}

static void merge_words(Trainer *trainer, int32_t left, int32_t right, int32_t merged)
{
    for (size_t w = 0; w < trainer->n_words; w++) {
        Word *word = &trainer->words[w];
        int32_t *symbols = trainer->symbols + word->at;
        if (!has_pair(symbols, word->n, left, right)) {
            continue;
        }
        count_pairs(trainer, word, -1);
        uint32_t n = 0;
        for (uint32_t i = 0; i < word->n; n++) {
            bool hit = i + 1 < word->n && symbols[i] == left && symbols[i + 1] == right;
            symbols[n] = hit ? merged : symbols[i];
            i += hit ? 2 : 1;
        }
        word->n = n;
        count_pairs(trainer, word, 1);
    }
}

/* The token of these bytes, made when it is not there: two merges may give the same one. */
static int32_t token_of(Trainer *trainer, const char *bytes, size_t n)
{
    for (int32_t id = 0; id < trainer->n_tokens; id++) {
        Span span = trainer->tokens[id];
        if (span.n == n && memcmp(trainer->bytes.bytes + span.at, bytes, n) == 0) {
            return id;
        }
    }
    trainer->tokens[trainer->n_tokens] = (Span){(uint32_t)trainer->bytes.n, (uint32_t)n};
    text_append(&trainer->bytes, bytes, n);
    return trainer->n_tokens++;
}

static int32_t merged_token(Trainer *trainer, Pair pair)
{
    Text bytes = {0};
    Span left = trainer->tokens[pair.left], right = trainer->tokens[pair.right];
    text_append(&bytes, trainer->bytes.bytes + left.at, left.n);
    text_append(&bytes, trainer->bytes.bytes + right.at, right.n);
    int32_t id = token_of(trainer, bytes.bytes, bytes.n);
    text_release(&bytes);
    return id;
}

static void learn(Trainer *trainer, int32_t n_tokens)
{
    for (size_t w = 0; w < trainer->n_words; w++) {
        count_pairs(trainer, &trainer->words[w], 1);
    }
    while (trainer->n_tokens < n_tokens) {
        Pair pair = best_pair(trainer);
        if (pair.left < 0) {
            break;
        }
        int32_t merged = merged_token(trainer, pair);
        trainer->merges = grow(trainer->merges, &trainer->merge_capacity,
                               (size_t)trainer->n_merges + 1, sizeof *trainer->merges);
        trainer->merges[trainer->n_merges][0] = pair.left;
        trainer->merges[trainer->n_merges][1] = pair.right;
        trainer->n_merges++;
        merge_words(trainer, pair.left, pair.right, merged);
    }
}

/* ---- writing ------------------------------------------------------------------------------- */

static void add_token_string(Text *json, const Trainer *trainer, int32_t id)
{
    Text token = {0};
    Span span = trainer->tokens[id];
    tokenizer_bytes_token(&token, trainer->bytes.bytes + span.at, span.n);
    text_json_string(json, token.bytes, token.n);
    text_release(&token);
}

static void add_added_tokens(Text *json, const Trainer *trainer)
{
    text_add(json, " \"added_tokens\": [");
    for (int i = 0; i < trainer->training->n_special; i++) {
        const char *content = trainer->training->special_tokens[i];
        text_printf(json, "%s\n  {\"id\": %d, \"content\": ", i ? "," : "", trainer->n_tokens + i);
        text_json_string(json, content, strlen(content));
        text_add(json, ", \"single_word\": false, \"lstrip\": false, \"rstrip\": false, "
                       "\"normalized\": false, \"special\": true}");
    }
    text_add(json, "],\n");
}

static void write_json(Text *json, const Trainer *trainer)
{
    static const char byte_level[] = "{\"type\": \"ByteLevel\", \"add_prefix_space\": false, "
                                     "\"trim_offsets\": true, \"use_regex\": true}";
    text_add(json, "{\"version\": \"1.0\", \"truncation\": null, \"padding\": null,\n");
    add_added_tokens(json, trainer);
    text_add(json, " \"normalizer\": null,\n \"pre_tokenizer\": ");
    if (trainer->training->single_digits) {
        text_printf(json,
                    "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"Digits\", "
                    "\"individual_digits\": true}, %s]}",
                    byte_level);
    } else {
        text_add(json, byte_level);
    }
    text_printf(json, ",\n \"post_processor\": null,\n \"decoder\": %s,\n", byte_level);
    text_add(json, " \"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": null, "
                   "\"continuing_subword_prefix\": null, \"end_of_word_suffix\": null, "
                   "\"fuse_unk\": false, \"byte_fallback\": false, \"ignore_merges\": false,\n"
                   "  \"vocab\": {");
    for (int32_t id = 0; id < trainer->n_tokens; id++) {
        text_add(json, id ? ", " : "");
        add_token_string(json, trainer, id);
        text_printf(json, ": %d", id);
    }
    text_add(json, "},\n  \"merges\": [");
    for (int32_t i = 0; i < trainer->n_merges; i++) {
        text_add(json, i ? ", [" : "[");
        add_token_string(json, trainer, trainer->merges[i][0]);
        text_add(json, ", ");
        add_token_string(json, trainer, trainer->merges[i][1]);
        text_add(json, "]");
    }
    text_add(json, "]}}\n");
}

/* ---- the whole ----------------------------------------------------------------------------- */

static Status check_options(const TokenizerTraining *training, Error *error)
{
    if (training->n_special < 0 || training->n_special > 1024 ||
        training->vocab_size < 256 + training->n_special || training->vocab_size > 1 << 20) {
        return error_set(error, STATUS_USAGE,
                         "a vocabulary of %d with %d special tokens: between %d (256 bytes and the "
                         "special tokens) and %d is possible",
                         training->vocab_size, training->n_special, 256 + training->n_special,
                         1 << 20);
    }
    for (int i = 0; i < training->n_special; i++) {
        const char *token = training->special_tokens[i];
        size_t n = strlen(token);
        if (n < 2 || n > TOKENIZER_MAX_ADDED || utf8_valid_prefix(token, n) < n) {
            return error_set(error, STATUS_USAGE,
                             "special token %d does not have 2 to %d bytes of UTF-8", i,
                             TOKENIZER_MAX_ADDED);
        }
        for (int j = 0; j < i; j++) {
            if (strcmp(token, training->special_tokens[j]) == 0) {
                return error_set(error, STATUS_USAGE, "special token \"%s\" is given twice", token);
            }
        }
    }
    return STATUS_OK;
}

static Status check_special(const Trainer *trainer, Error *error)
{
    for (int i = 0; i < trainer->training->n_special; i++) {
        const char *token = trainer->training->special_tokens[i];
        size_t n = strlen(token);
        for (int32_t id = 0; id < trainer->n_tokens; id++) {
            Span span = trainer->tokens[id];
            if (span.n == n && memcmp(trainer->bytes.bytes + span.at, token, n) == 0) {
                return error_set(error, STATUS_REFUSED,
                                 "the texts hold the special token \"%s\" as a word", token);
            }
        }
    }
    return STATUS_OK;
}

Status tokenizer_train(const char *path, const char *const *texts, size_t n_texts,
                       const TokenizerTraining *training, Error *error)
{
    Status status = check_options(training, error);
    if (status) {
        return status;
    }
    Trainer trainer = {.training = training};
    trainer.tokens = zeros((size_t)training->vocab_size, sizeof *trainer.tokens);
    for (int byte = 0; byte < 256; byte++) {
        char one = (char)byte;
        token_of(&trainer, &one, 1);
    }
    status = count_words(&trainer, texts, n_texts, error);
    if (!status) {
        learn(&trainer, training->vocab_size - training->n_special);
        status = check_special(&trainer, error);
    }
    if (!status) {
        Text json = {0};
        write_json(&json, &trainer);
        status = file_write(path, json.bytes, json.n, error);
        text_release(&json);
    }
    free(trainer.symbols);
    free(trainer.words);
    free(trainer.word_slots);
    free(trainer.pairs);
    free(trainer.tokens);
    free(trainer.merges);
    text_release(&trainer.bytes);
    return status;
}
