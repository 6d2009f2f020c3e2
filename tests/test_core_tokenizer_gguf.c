/* core/tokenizer_gguf: the ids of a tokenizer in a GGUF file are those of its tokenizer.json. Real
 * tokenizer.json files are written as GGUF metadata here, as llama.cpp's converter does. */
#include "core/tokenizer_gguf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/json.h"
#include "core/random.h"
#include "tests/gguf_file.h"
#include "tests/tokenizer_test.h"

static const char *const PATH = "test_core_tokenizer_gguf.gguf";

/* ---- writing --------------------------------------------------------------------------------- */

/* A merge of either form, "a b". */
static void put_merge(Text *out, const Json *merge)
{
    size_t n;
    const char *string = json_string(merge, &n);
    Text joined = {0};
    if (!string) {
        text_add(&joined, json_string(json_at(merge, 0), NULL));
        text_add(&joined, " ");
        text_add(&joined, json_string(json_at(merge, 1), NULL));
        string = joined.bytes;
        n = joined.n;
    }
    put_string(out, string, n);
    text_release(&joined);
}

/* n_pad: tokens that fill up the vocabulary, as embeddings of rounded sizes have them. */
static void write_gguf(const Json *root, const char *pre, int n_pad, int bos)
{
    const Json *vocab = json_get(json_get(root, "model"), "vocab");
    const Json *merges = json_get(json_get(root, "model"), "merges");
    const Json *added = json_get(root, "added_tokens");
    size_t most = json_size(vocab) + json_size(added) + (size_t)n_pad, n = 0;
    const char **tokens = calloc(most, sizeof *tokens);
    int *types = calloc(most, sizeof *types);
    for (size_t i = 0; i < json_size(vocab); i++) {
        int64_t id = 0;
        json_int64(json_at(vocab, i), &id);
        tokens[id] = json_key(vocab, i);
        types[id] = 1;
        n = (size_t)id >= n ? (size_t)id + 1 : n;
    }
    for (size_t i = 0; i < json_size(added); i++) {
        int64_t id = 0;
        bool special = false;
        json_int64(json_get(json_at(added, i), "id"), &id);
        json_bool(json_get(json_at(added, i), "special"), &special);
        tokens[id] = json_string(json_get(json_at(added, i), "content"), NULL);
        types[id] = special ? 3 : 4;
        n = (size_t)id >= n ? (size_t)id + 1 : n;
    }
    GgufFile file = {0};
    Text bytes = {0};
    file_string(&file, "tokenizer.ggml.model", "gpt2");
    file_string(&file, "tokenizer.ggml.pre", pre);
    put_array(&file.values, "tokenizer.ggml.tokens", GGUF_STRING, n + (size_t)n_pad);
    for (size_t i = 0; i < n + (size_t)n_pad; i++) {
        char pad[32];
        snprintf(pad, sizeof pad, "[PAD%zu]", i);
        put_string(&file.values, i < n ? tokens[i] : pad, strlen(i < n ? tokens[i] : pad));
    }
    put_array(&file.values, "tokenizer.ggml.token_type", GGUF_INT32, n + (size_t)n_pad);
    for (size_t i = 0; i < n + (size_t)n_pad; i++) {
        put_u32(&file.values, i < n ? (uint32_t)types[i] : 5);
    }
    put_array(&file.values, "tokenizer.ggml.merges", GGUF_STRING, json_size(merges));
    for (size_t i = 0; i < json_size(merges); i++) {
        put_merge(&file.values, json_at(merges, i));
    }
    file.n_values += 3;
    file_u32(&file, "tokenizer.ggml.", "bos_token_id", (uint32_t)bos);
    file_finish(&file, &bytes);
    assert_int_equal(file_write(PATH, bytes.bytes, bytes.n, NULL), STATUS_OK);
    text_release(&bytes);
    free(tokens);
    free(types);
}

/* ---- comparing ------------------------------------------------------------------------------- */

static void same_ids(const Tokenizer *a, const Tokenizer *b, const char *text, size_t n)
{
    TokenList x = {0}, y = {0};
    Text back = {0}, other = {0};
    for (unsigned flags = 0; flags < 4; flags++) {
        x.n = y.n = 0;
        assert_int_equal(tokenizer_encode(a, text, n, flags, &x, NULL), STATUS_OK);
        assert_int_equal(tokenizer_encode(b, text, n, flags, &y, NULL), STATUS_OK);
        if (x.n != y.n || (x.n && memcmp(x.ids, y.ids, x.n * sizeof *x.ids) != 0)) {
            fail_msg("flags %u: other ids for \"%.*s\"", flags, (int)(n < 200 ? n : 200), text);
        }
    }
    text_clear(&back);
    tokenizer_decode(a, x.ids, x.n, true, &back);
    tokenizer_decode(b, y.ids, y.n, true, &other);
    assert_string_equal(text_string(&back), text_string(&other));
    token_list_release(&x);
    token_list_release(&y);
    text_release(&back);
    text_release(&other);
}

/* The texts of llama.cpp's vectors, lines of GSM8K, special tokens in a text, random characters. */
static void compare(const Tokenizer *a, const Tokenizer *b, const char *specials)
{
    static const char divider[] = "\n__ggml_vocab_test__\n";
    char path[4096], *texts;
    size_t n;
    shared_path(path, "data/tokenizers/vectors/qwen2.inp");
    assert_int_equal(file_read(&texts, &n, path, 1 << 20, NULL), STATUS_OK);
    for (char *text = texts, *next; text; text = next) {
        next = strstr(text, divider);
        same_ids(a, b, text, next ? (size_t)(next - text) : strlen(text));
        next = next ? next + strlen(divider) : NULL;
    }
    free(texts);
    shared_path(path, "data/gsm8k/test.jsonl");
    assert_int_equal(file_read(&texts, &n, path, 1 << 24, NULL), STATUS_OK);
    int n_lines = 0;
    for (char *line = texts, *end; n_lines < 200 && (end = strchr(line, '\n')); line = end + 1) {
        same_ids(a, b, line, (size_t)(end - line));
        n_lines++;
    }
    assert_int_equal(n_lines, 200);
    free(texts);
    same_ids(a, b, specials, strlen(specials));
    RandomKey key = {7, RANDOM_DATA};
    for (uint32_t i = 0; i < 500; i++) {
        Text text = {0};
        for (uint32_t j = 0; j < 20; j++) {
            static const char *const some[] = {" ",  "  ", "a",  "B",  "the", "'s",
                                               "1",  "23", "\n", "\t", "é",   "\u2581",
                                               "汉", "😀",  "<",  ">",  "|",   "."};
            size_t which = (size_t)(random_uniform(key, i, j, 0, 0) * 18);
            text_add(&text, some[which]);
        }
        same_ids(a, b, text.bytes, text.n);
        text_release(&text);
    }
}

static void compare_json(const char *folder, const char *pre, int n_pad, int bos,
                         const char *specials)
{
    char root[4096], path[4200];
    JsonDocument *document;
    shared_path(root, "data/tokenizers");
    snprintf(path, sizeof path, "%s/%s/tokenizer.json", root, folder);
    assert_int_equal(json_read(&document, path, 1 << 28, NULL), STATUS_OK);
    write_gguf(json_root(document), pre, n_pad, bos);
    json_free(document);
    Tokenizer *a = open_ok(path), *b = open_ok(PATH);
    unlink(PATH);
    assert_int_equal(tokenizer_size(a), tokenizer_size(b));
    assert_int_equal(tokenizer_bos(a), tokenizer_bos(b));
    compare(a, b, specials);
    tokenizer_free(a);
    tokenizer_free(b);
}

static void qwen2_ids_are_those_of_its_json(void **state)
{
    (void)state;
    compare_json("qwen2.5", "qwen2", 271, 151643, "<|im_start|>user\nx<|im_end|> <tool_call>y");
}

static void llama3_ids_are_those_of_its_json(void **state)
{
    (void)state;
    compare_json("llama3.2", "llama-bpe", 0, 128000,
                 "<|begin_of_text|><|start_header_id|>user<|eot_id|> hello");
}

static void smollm_ids_are_those_of_its_json(void **state)
{
    (void)state;
    compare_json("smollm2", "smollm", 0, 1, "<|im_start|>user 12345<|im_end|>");
}

static void vocabulary_file(const char *gguf, const char *folder, const char *specials)
{
    char file[4096], json[4096], relative[128];
    snprintf(relative, sizeof relative, "data/gguf/%s", gguf);
    shared_path(file, relative);
    snprintf(relative, sizeof relative, "data/tokenizers/%s/tokenizer.json", folder);
    shared_path(json, relative);
    Tokenizer *a = open_ok(json), *b = open_ok(file);
    assert_int_equal(tokenizer_bos(a), tokenizer_bos(b));
    compare(a, b, specials);
    tokenizer_free(a);
    tokenizer_free(b);
}

/* Its special tokens are looked for after normalizing in that tokenizer.json, which metadata cannot
 * say: none are in the text. */
static void llama2_ids_are_those_of_its_json(void **state)
{
    (void)state;
    vocabulary_file("ggml-vocab-llama-spm.gguf", "llama2", "   four    spaces  and   three ");
}

/* ---- refusals -------------------------------------------------------------------------------- */

static Status tiny(const char *model, const char *pre, const char *const *tokens, size_t n,
                   const char *merge, Error *error)
{
    GgufFile file = {0};
    Text bytes = {0};
    Tokenizer *tokenizer = NULL;
    file_string(&file, "tokenizer.ggml.model", model);
    if (pre) {
        file_string(&file, "tokenizer.ggml.pre", pre);
    }
    put_array(&file.values, "tokenizer.ggml.tokens", GGUF_STRING, n);
    for (size_t i = 0; i < n; i++) {
        put_string(&file.values, tokens[i], strlen(tokens[i]));
    }
    put_array(&file.values, "tokenizer.ggml.merges", GGUF_STRING, 1);
    put_string(&file.values, merge, strlen(merge));
    file.n_values += 2;
    file_finish(&file, &bytes);
    assert_int_equal(file_write(PATH, bytes.bytes, bytes.n, NULL), STATUS_OK);
    text_release(&bytes);
    Status status = tokenizer_open(&tokenizer, PATH, error);
    unlink(PATH);
    tokenizer_free(tokenizer);
    return status;
}

static void what_is_not_known_is_refused_by_name(void **state)
{
    (void)state;
    static const char *const tokens[] = {"a", "b", "ab"}, *const twice[] = {"a", "b", "a"};
    static const struct {
        const char *model, *pre;
        const char *const *tokens;
        const char *merge, *message;
    } cases[] = {
        {"t5", NULL, tokens, "a b", "\"tokenizer.ggml.model\" \"t5\" is not supported"},
        {"gpt2", NULL, tokens, "a b", "\"tokenizer.ggml.pre\" is missing, expected a string"},
        {"gpt2", "deepseek-llm", tokens, "a b",
         "\"tokenizer.ggml.pre\" \"deepseek-llm\" is not supported (qwen2, llama-bpe,"},
        {"gpt2", "qwen2", twice, "a b", "is there twice"},
        {"gpt2", "qwen2", tokens, "a b", "no token for byte 0x00"},
        {"llama", NULL, tokens, "a b", "\"tokenizer.ggml.scores\" is missing"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Error error = {{0}};
        Status status =
            tiny(cases[i].model, cases[i].pre, cases[i].tokens, 3, cases[i].merge, &error);
        if (status != STATUS_REFUSED || !strstr(error.message, PATH) ||
            !strstr(error.message, cases[i].message)) {
            fail_msg("%zu: %d \"%s\"", i, status, error.message);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(qwen2_ids_are_those_of_its_json),
        cmocka_unit_test(llama3_ids_are_those_of_its_json),
        cmocka_unit_test(smollm_ids_are_those_of_its_json),
        cmocka_unit_test(llama2_ids_are_those_of_its_json),
        cmocka_unit_test(what_is_not_known_is_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
