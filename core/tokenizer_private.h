/* What the tokenizer_*.c files share. Everything in a Tokenizer is fixed once it is open, but for
 * what VocabSlot remembers, the same whoever sees it first: any number of threads may encode with
 * it. */
#pragma once
#include "core/json.h"
#include "core/tokenizer.h"
#include "core/unicode.h"

enum {
    TOKENIZER_MAX_ID = (1 << 22) - 1,
    TOKENIZER_MAX_TEXT = 1 << 30,  /* bytes */
    TOKENIZER_MAX_STEPS = 8,       /* of a normalizer, a pre-tokenizer, a decoder */
    TOKENIZER_MAX_SHORT = 16,      /* bytes of a string that a normalizer or decoder puts in */
    TOKENIZER_MAX_REPLACE = 2,     /* Replace steps of a decoder */
    TOKENIZER_MAX_TOKEN = 1 << 16, /* bytes of a token */
    TOKENIZER_MAX_ADDED = 256 /* bytes of an added token: matching takes text x this at worst */
};

/* ---- strings of tokens ------------------------------------------------------------------- */

typedef struct {
    uint32_t at, n; /* in Tokenizer.bytes */
} Span;

enum { TOKEN_EXISTS = 1, TOKEN_ADDED = 2, TOKEN_SPECIAL = 4 };

/* ---- vocabulary and merges (tokenizer_bpe.c) ----------------------------------------------- */

/* The bytes of a token: up to 15 of them and their number, so that a look-up reads nothing else; of
 * longer ones hashes. */
typedef struct {
    uint64_t low, high;
} VocabKey;

typedef struct {
    VocabKey key;
    int32_t id; /* -1: free */
    bool whole; /* BPE makes the token from its own bytes; set when that is seen first */
} VocabSlot;

typedef struct {
    int32_t left, right; /* left -1: free */
    int32_t rank, id;
} MergeSlot;

/* ---- added tokens (tokenizer_added.c) ------------------------------------------------------ */

typedef struct {
    const char *content; /* what is looked for; (n) bytes and a NUL, owned */
    uint32_t n;
    int32_t id;
    bool special, lstrip, rstrip;
} AddedToken;

/* Sorted by content. first[b] .. first[b + 1]: those that begin with byte b. */
typedef struct {
    AddedToken *tokens;
    size_t n;
    uint32_t first[257];
} AddedSet;

/* ---- the steps of the file ----------------------------------------------------------------- */

typedef enum { NORMALIZE_NFC, NORMALIZE_PREPEND, NORMALIZE_REPLACE } NormalizeKind;

typedef struct {
    char bytes[TOKENIZER_MAX_SHORT + 1];
    size_t n;
} ShortString;

typedef struct {
    NormalizeKind kind;
    ShortString from, to; /* PREPEND: to */
} NormalizeStep;

typedef enum {
    SPLIT_GPT2,       /* the pattern inside ByteLevel with use_regex */
    SPLIT_QWEN2,      /* digits one by one */
    SPLIT_LLAMA3,     /* digits by three */
    SPLIT_DIGITS,     /* each digit alone */
    SPLIT_DIGIT_RUNS, /* runs of digits alone */
    SPLIT_MARKS,      /* before each TOKENIZER_MARK */
    SPLIT_MARK_RUNS   /* before each run of them */
} SplitRule;

/* SentencePiece's stand-in for a space, U+2581. */
#define TOKENIZER_MARK "\xe2\x96\x81"

/* Metaspace: spaces become marks, and one is put before a text that begins without. */
typedef enum {
    METASPACE_NONE, /* no such step */
    METASPACE_NEVER,
    METASPACE_FIRST, /* only where the whole text begins */
    METASPACE_ALWAYS /* also after each added token */
} Metaspace;

typedef struct {
    ShortString from, to;
} DecodeReplace;

struct Tokenizer {
    char sha256[SHA256_HEX_SIZE];
    int32_t n_ids;  /* largest id + 1 */
    size_t n_vocab; /* entries of model.vocab */
    uint8_t *flags; /* (n_ids) TOKEN_* */
    Text bytes;
    Span *written; /* (n_ids) as in the file, with a NUL after */
    Span *decoded; /* (n_ids) what decoding gives */

    VocabSlot *vocab;     /* by the bytes that BPE sees: decoded when byte_level, else written */
    size_t n_vocab_slots; /* power of two */
    size_t longest;       /* bytes of the longest entry */
    MergeSlot *merges;
    size_t n_merge_slots;  /* power of two */
    int32_t byte_ids[256]; /* byte level: the byte's token or -1; byte_fallback: <0xNN> */
    int32_t unknown_id;    /* -1: none */
    bool byte_level, byte_fallback, fuse_unknown, ignore_merges;

    AddedSet raw;        /* looked for in the text as it comes */
    AddedSet normalized; /* looked for after normalizing */

    NormalizeStep normalize[TOKENIZER_MAX_STEPS];
    int n_normalize;
    SplitRule split[TOKENIZER_MAX_STEPS];
    int n_split;
    bool prefix_space; /* ByteLevel with add_prefix_space */
    Metaspace metaspace;
    int32_t before[TOKENIZER_MAX_STEPS], after[TOKENIZER_MAX_STEPS]; /* the post-processor's */
    int n_before, n_after;

    DecodeReplace replace[TOKENIZER_MAX_REPLACE];
    int n_replace;
    bool decode_bytes; /* <0xNN> becomes a byte */
    bool decode_byte_level;
    bool join_with_space;
    ShortString strip;
    size_t strip_start, strip_stop;
};

/* ---- tokenizer_load.c, tokenizer_steps.c --------------------------------------------------- */

Status tokenizer_load(Tokenizer *tokenizer, const Json *root, Error *error);
/* Reads pre_tokenizer, normalizer, decoder; needs nothing else. */
Status tokenizer_load_steps(Tokenizer *tokenizer, const Json *root, Error *error);
/* Needs the vocabulary and the added tokens. */
Status tokenizer_load_post(Tokenizer *tokenizer, const Json *post, Error *error);
/* The regular expression that a rule stands for; NULL for digits. */
const char *tokenizer_split_pattern(SplitRule rule);
/* The steps of the normalizer; text: (n) bytes appended to out. */
Status tokenizer_normalize(const Tokenizer *tokenizer, Text *out, const char *text, size_t n,
                           Error *error);

/* text with each `from` replaced, appended to out; false when that exceeds TOKENIZER_MAX_TEXT. */
bool tokenizer_replace(Text *out, const char *text, size_t n, const ShortString *from,
                       const ShortString *to);

/* Reads a boolean member that may be missing or null. */
Status tokenizer_flag(bool *out, const Json *object, const char *key, bool missing,
                      const char *place, Error *error);

/* ---- tokenizer_added.c --------------------------------------------------------------------- */

Status tokenizer_load_added(Tokenizer *tokenizer, const Json *added, Error *error);
void tokenizer_release_added(AddedSet *set);

typedef struct {
    const AddedSet *set;
    const char *text;
    size_t n;
    size_t search; /* where the next match may start */
    size_t taken;  /* text before this was handed out */
    bool with_special;
} AddedScan;

/* The next match: *id and the plain text before it, (*from, *to); at the end id -1 and the rest. */
void tokenizer_next_added(AddedScan *scan, size_t *from, size_t *to, int32_t *id);

/* ---- tokenizer_split.c --------------------------------------------------------------------- */

/* Bytes of the first piece of text. text: (n >= 1) bytes of valid UTF-8. */
size_t tokenizer_split_next(SplitRule rule, const char *text, size_t n);

/* ---- tokenizer_bytes.c --------------------------------------------------------------------- */

/* GPT-2's alphabet for bytes. out: the byte that character c stands for, or -1. */
int tokenizer_char_byte(int32_t c);
int32_t tokenizer_byte_char(uint8_t byte);
/* Appends the bytes that token stands for; false, nothing appended, when a character is outside. */
bool tokenizer_token_bytes(Text *out, const char *token, size_t n);
void tokenizer_bytes_token(Text *out, const char *bytes, size_t n);

/* ---- tokenizer_bpe.c ----------------------------------------------------------------------- */

/* -1 when absent. */
int32_t tokenizer_vocab_find(const Tokenizer *tokenizer, const char *bytes, size_t n);
/* Adds id, whose strings are already in place; false when the same bytes are there. */
bool tokenizer_vocab_add(Tokenizer *tokenizer, int32_t id);
/* false when the pair is there. */
bool tokenizer_merge_add(Tokenizer *tokenizer, int32_t left, int32_t right, int32_t rank,
                         int32_t id);

/* Memory for one call of encode. */
typedef struct Symbol Symbol;
typedef struct {
    Symbol *symbols;
    size_t n_symbols, symbol_capacity;
    uint64_t *heap;
    size_t n_heap, heap_capacity;
} BpeWork;
void tokenizer_bpe_release(BpeWork *work);
Status tokenizer_bpe(const Tokenizer *tokenizer, BpeWork *work, const char *piece, size_t n,
                     TokenList *ids, Error *error);
/* Last step of loading: splits before runs of marks where no merge reaches over their front (BPE's
 * ids are then the same, and found in far less time). */
void tokenizer_bpe_finish(Tokenizer *tokenizer);
