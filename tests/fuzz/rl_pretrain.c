/* Any bytes as a recipe of `pretrain`, after a NUL those of its corpus: refused, or pages of ids
 * and weights. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "rl/corpus.h"
#include "rl/recipe.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/memory.h"
#include "tests/fuzz/small_tokenizer.h"

static void read_recipe(const char *path)
{
    static Recipe recipe;
    Status status = recipe_read(&recipe, path, NULL);
    if (status == STATUS_OK) {
        if (recipe.steps < 1 || recipe.warmup_steps > recipe.steps || !isfinite(recipe.lr) ||
            !memchr(recipe.corpus, 0, sizeof recipe.corpus)) {
            abort();
        }
    } else if (status != STATUS_USAGE) {
        abort();
    }
}

static void read_corpus(const char *path)
{
    enum { MAX_TOKENS = 64 };
    static Tokenizer *tokenizer;
    if (!tokenizer) {
        tokenizer = small_tokenizer();
    }
    Corpus corpus;
    Text text = {0};
    Status status =
        corpus_open(&corpus, path, tokenizer, SMALL_SPECIAL + 1, 0.25, MAX_TOKENS, NULL);
    if (status == STATUS_OK) {
        for (int i = 0; i < corpus.n_pages; i++) {
            size_t n = corpus.first[i + 1] - corpus.first[i];
            if (n == 0 || n > MAX_TOKENS) {
                abort();
            }
        }
        for (size_t i = 0; i < corpus.first[corpus.n_pages]; i++) {
            if (corpus.ids[i] < 0 || (corpus.weights[i] != 1 && corpus.weights[i] != 0.25f)) {
                abort();
            }
        }
        corpus_close(&corpus);
    } else if (status != STATUS_REFUSED) {
        abort();
    }
    corpus_text(&text, path, NULL);
    text_release(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    char path[96];
    const uint8_t *rest;
    size_t n_rest, n_recipe = first_part(&rest, &n_rest, bytes, n);
    memory_folder_file(path, "recipe.json", bytes, n_recipe);
    read_recipe(path);
    memory_folder_file(path, "corpus.jsonl", rest, n_rest);
    read_corpus(path);
    return 0;
}
