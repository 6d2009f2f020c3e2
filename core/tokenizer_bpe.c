/* Byte pair encoding (Sennrich et al. 2016): the adjacent pair with the lowest rank is merged, the
 * leftmost first among equals, until no pair has a rank. A list of symbols and a heap of candidate
 * merges: O(n log n) for a piece of n bytes. */
#include "core/tokenizer_private.h"

#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* ---- tables -------------------------------------------------------------------------------- */

enum { SHORT_TOKEN = 15, LONG_MARK = 0xff };

static const uint64_t hash_factor = 0x9e3779b97f4a7c15u;

static uint64_t load(const char *bytes, size_t n)
{
    uint64_t word = 0;
    memcpy(&word, bytes, n);
    return word;
}

/* n of 0 to 8 bytes, with loads of fixed sizes that may overlap. */
static inline uint64_t load_few(const char *bytes, size_t n)
{
    if (n >= 8) {
        return load(bytes, 8);
    }
    if (n >= 4) {
        return load(bytes, 4) | load(bytes + n - 4, 4) << 8 * (n - 4);
    }
    if (n >= 2) {
        return load(bytes, 2) | load(bytes + n - 2, 2) << 8 * (n - 2);
    }
    return n ? (unsigned char)bytes[0] : 0;
}

static VocabKey long_key(const char *bytes, size_t n)
{
    uint64_t a = n * hash_factor, b = a;
    for (; n > 0; bytes += n < 8 ? n : 8, n -= n < 8 ? n : 8) {
        uint64_t word = load_few(bytes, n < 8 ? n : 8);
        a = (a ^ word) * hash_factor;
        a ^= a >> 29;
        b = (b + word) * 0xc2b2ae3d27d4eb4fu;
        b ^= b >> 31;
    }
    return (VocabKey){a, b | (uint64_t)LONG_MARK << 56};
}

static inline VocabKey vocab_key(const char *bytes, size_t n)
{
    if (n > SHORT_TOKEN) {
        return long_key(bytes, n);
    }
    uint64_t low = load_few(bytes, n), high = n > 8 ? load_few(bytes + 8, n - 8) : 0;
    return (VocabKey){low, high | (uint64_t)n << 56};
}

static inline size_t key_place(VocabKey key, size_t mask)
{
    uint64_t h = (key.low ^ key.high * 0xc2b2ae3d27d4eb4fu) * hash_factor;
    return (size_t)(h >> 32 ^ h >> 11) & mask;
}

static Span key_of(const Tokenizer *tokenizer, int32_t id)
{
    return tokenizer->byte_level ? tokenizer->decoded[id] : tokenizer->written[id];
}

/* The slot that holds these bytes, or the free one where they would be. */
static inline VocabSlot *vocab_slot(const Tokenizer *tokenizer, const char *bytes, size_t n)
{
    size_t mask = tokenizer->n_vocab_slots - 1;
    VocabKey key = vocab_key(bytes, n);
    for (size_t i = key_place(key, mask);; i = (i + 1) & mask) {
        VocabSlot *slot = &tokenizer->vocab[i];
        if (slot->id < 0) {
            return slot;
        }
        if (slot->key.low == key.low && slot->key.high == key.high) {
            Span span = n > SHORT_TOKEN ? key_of(tokenizer, slot->id) : (Span){0};
            if (n <= SHORT_TOKEN ||
                (span.n == n && memcmp(tokenizer->bytes.bytes + span.at, bytes, n) == 0)) {
                return slot;
            }
        }
    }
}

int32_t tokenizer_vocab_find(const Tokenizer *tokenizer, const char *bytes, size_t n)
{
    return n > tokenizer->longest ? -1 : vocab_slot(tokenizer, bytes, n)->id;
}

bool tokenizer_vocab_add(Tokenizer *tokenizer, int32_t id)
{
    Span span = key_of(tokenizer, id);
    const char *bytes = tokenizer->bytes.bytes + span.at;
    VocabSlot *slot = vocab_slot(tokenizer, bytes, span.n);
    if (slot->id >= 0) {
        return false;
    }
    *slot = (VocabSlot){.key = vocab_key(bytes, span.n), .id = id};
    if (span.n > tokenizer->longest) {
        tokenizer->longest = span.n;
    }
    return true;
}

static MergeSlot *merge_slot(const Tokenizer *tokenizer, int32_t left, int32_t right)
{
    uint64_t h = ((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * 0x9e3779b97f4a7c15u;
    h ^= h >> 32;
    h *= 0x9e3779b97f4a7c15u;
    size_t mask = tokenizer->n_merge_slots - 1;
    for (size_t i = (size_t)(h >> 32) & mask;; i = (i + 1) & mask) {
        MergeSlot *slot = &tokenizer->merges[i];
        if (slot->left < 0 || (slot->left == left && slot->right == right)) {
            return slot;
        }
    }
}

bool tokenizer_merge_add(Tokenizer *tokenizer, int32_t left, int32_t right, int32_t rank,
                         int32_t id)
{
    MergeSlot *slot = merge_slot(tokenizer, left, right);
    if (slot->left >= 0) {
        return false;
    }
    *slot = (MergeSlot){left, right, rank, id};
    return true;
}

/* ---- symbols ------------------------------------------------------------------------------- */

struct Symbol {
    int32_t id;         /* -1: merged into the one before */
    int32_t prev, next; /* -1: none */
    int32_t rank;       /* of merging it with the next; -1: cannot */
    int32_t merged;     /* the token that would be */
};

void tokenizer_bpe_release(BpeWork *work)
{
    free(work->symbols);
    free(work->heap);
    *work = (BpeWork){0};
}

static Status no_memory(Error *error, size_t n_bytes)
{
    return error_set(error, STATUS_FAILED, "no memory to tokenize (%.3f GiB)",
                     (double)n_bytes / (1 << 30));
}

static Status add_symbol(BpeWork *work, int32_t id, Error *error)
{
    if (work->n_symbols == work->symbol_capacity) {
        size_t capacity = work->symbol_capacity ? work->symbol_capacity * 2 : 256;
        Symbol *symbols = realloc(work->symbols, capacity * sizeof *symbols);
        if (!symbols) {
            return no_memory(error, capacity * sizeof *symbols);
        }
        work->symbols = symbols;
        work->symbol_capacity = capacity;
    }
    int32_t i = (int32_t)work->n_symbols++;
    work->symbols[i] = (Symbol){.id = id, .prev = i - 1, .next = -1, .rank = -1};
    if (i > 0) {
        work->symbols[i - 1].next = i;
    }
    return STATUS_OK;
}

static Status byte_symbols(const Tokenizer *tokenizer, BpeWork *work, const char *piece, size_t n,
                           Error *error)
{
    for (size_t i = 0; i < n; i++) {
        int32_t id = tokenizer->byte_ids[(unsigned char)piece[i]];
        if (id < 0) {
            return error_set(error, STATUS_REFUSED,
                             "the tokenizer has no token for byte 0x%02X of the text",
                             (unsigned char)piece[i]);
        }
        Status status = add_symbol(work, id, error);
        if (status) {
            return status;
        }
    }
    return STATUS_OK;
}

/* A character is its token, or its bytes' tokens, or the unknown token (one for a run of such
 * characters when the file says fuse_unk). */
static Status char_symbols(const Tokenizer *tokenizer, BpeWork *work, const char *piece, size_t n,
                           Error *error)
{
    bool after_unknown = false;
    for (size_t i = 0; i < n;) {
        int32_t c;
        size_t length = utf8_decode(&c, piece + i, n - i);
        int32_t id = tokenizer_vocab_find(tokenizer, piece + i, length);
        Status status = STATUS_OK;
        bool is_unknown = false;
        if (id >= 0) {
            status = add_symbol(work, id, error);
        } else if (tokenizer->byte_fallback) {
            status = byte_symbols(tokenizer, work, piece + i, length, error);
        } else if (tokenizer->unknown_id >= 0) {
            is_unknown = true;
            if (!(after_unknown && tokenizer->fuse_unknown)) {
                status = add_symbol(work, tokenizer->unknown_id, error);
            }
        } else {
            status = error_set(error, STATUS_REFUSED,
                               "the tokenizer has no token for character U+%04X of the text and no "
                               "unk_token",
                               (unsigned)c);
        }
        if (status) {
            return status;
        }
        after_unknown = is_unknown;
        i += length;
    }
    return STATUS_OK;
}

/* ---- the heap: keys rank << 32 | place, smallest first --------------------------------------- */

static void sift_up(uint64_t *heap, size_t i)
{
    uint64_t key = heap[i];
    while (i > 0 && heap[(i - 1) / 2] > key) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = key;
}

static uint64_t heap_pop(BpeWork *work)
{
    uint64_t *heap = work->heap, top = heap[0], key = heap[--work->n_heap];
    size_t i = 0, n = work->n_heap;
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && heap[child + 1] < heap[child]) {
            child++;
        }
        if (heap[child] >= key) {
            break;
        }
        heap[i] = heap[child];
    }
    heap[i] = key;
    return top;
}

static Status heap_reserve(BpeWork *work, size_t n, Error *error)
{
    if (n > work->heap_capacity) {
        uint64_t *heap = realloc(work->heap, n * sizeof *heap);
        if (!heap) {
            return no_memory(error, n * sizeof *heap);
        }
        work->heap = heap;
        work->heap_capacity = n;
    }
    return STATUS_OK;
}

/* Looks up the pair that begins at symbol i and puts it on the heap. */
static void propose(const Tokenizer *tokenizer, BpeWork *work, int32_t i)
{
    Symbol *symbol = &work->symbols[i];
    symbol->rank = -1;
    if (symbol->next >= 0) {
        const MergeSlot *slot = merge_slot(tokenizer, symbol->id, work->symbols[symbol->next].id);
        if (slot->left >= 0) {
            symbol->rank = slot->rank;
            symbol->merged = slot->id;
            assert(work->n_heap < work->heap_capacity);
            work->heap[work->n_heap] = (uint64_t)(uint32_t)slot->rank << 32 | (uint32_t)i;
            sift_up(work->heap, work->n_heap++);
        }
    }
}

static void merge_next(const Tokenizer *tokenizer, BpeWork *work, int32_t i)
{
    Symbol *symbol = &work->symbols[i], *gone = &work->symbols[symbol->next];
    symbol->id = symbol->merged;
    symbol->next = gone->next;
    gone->id = -1;
    gone->rank = -1;
    if (symbol->next >= 0) {
        work->symbols[symbol->next].prev = i;
    }
    if (symbol->prev >= 0) {
        propose(tokenizer, work, symbol->prev);
    }
    propose(tokenizer, work, i);
}

Status tokenizer_bpe(const Tokenizer *tokenizer, BpeWork *work, const char *piece, size_t n,
                     TokenList *ids, Error *error)
{
    VocabSlot *slot = n <= tokenizer->longest ? vocab_slot(tokenizer, piece, n) : NULL;
    bool is_token = slot && slot->id >= 0;
    if (is_token && (tokenizer->ignore_merges || __atomic_load_n(&slot->whole, __ATOMIC_RELAXED))) {
        token_list_add(ids, slot->id);
        return STATUS_OK;
    }
    size_t before = ids->n;
    work->n_symbols = work->n_heap = 0;
    Status status = tokenizer->byte_level ? byte_symbols(tokenizer, work, piece, n, error)
                                          : char_symbols(tokenizer, work, piece, n, error);
    /* Every merge removes a symbol and proposes two pairs at most. */
    if (!status) {
        status = heap_reserve(work, 3 * work->n_symbols + 1, error);
    }
    if (status) {
        return status;
    }
    for (size_t i = 0; i < work->n_symbols; i++) {
        propose(tokenizer, work, (int32_t)i);
    }
    while (work->n_heap) {
        uint64_t key = heap_pop(work);
        int32_t i = (int32_t)(uint32_t)key;
        /* A candidate is stale when its pair has changed since. */
        if (work->symbols[i].rank == (int32_t)(key >> 32)) {
            merge_next(tokenizer, work, i);
        }
    }
    for (int32_t i = 0; i >= 0 && (size_t)i < work->n_symbols; i = work->symbols[i].next) {
        token_list_add(ids, work->symbols[i].id);
    }
    if (is_token && ids->n == before + 1 && ids->ids[before] == slot->id) {
        __atomic_store_n(&slot->whole, true, __ATOMIC_RELAXED);
    }
    return STATUS_OK;
}

/* Is there a mark after anything else? */
static bool reaches_over_mark(const char *token, size_t n)
{
    const size_t n_mark = sizeof TOKENIZER_MARK - 1;
    bool other = false;
    for (size_t i = 0; i < n;) {
        bool mark = n - i >= n_mark && memcmp(token + i, TOKENIZER_MARK, n_mark) == 0;
        if (mark && other) {
            return true;
        }
        other = other || !mark;
        i += mark ? n_mark : 1;
    }
    return false;
}

static bool may_split_before_marks(const Tokenizer *tokenizer)
{
    if (tokenizer->byte_level || tokenizer->n_split ||
        tokenizer_vocab_find(tokenizer, TOKENIZER_MARK, sizeof TOKENIZER_MARK - 1) < 0) {
        return false;
    }
    for (size_t i = 0; i < tokenizer->n_merge_slots; i++) {
        const MergeSlot *slot = &tokenizer->merges[i];
        if (slot->left >= 0) {
            Span key = key_of(tokenizer, slot->id);
            if (reaches_over_mark(tokenizer->bytes.bytes + key.at, key.n)) {
                return false;
            }
        }
    }
    return true;
}

void tokenizer_bpe_finish(Tokenizer *tokenizer)
{
    if (may_split_before_marks(tokenizer)) {
        tokenizer->split[tokenizer->n_split++] = SPLIT_MARK_RUNS;
    }
}
