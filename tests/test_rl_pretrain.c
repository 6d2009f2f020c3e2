/* The corpus, the recipe and the training loop from nothing, on a shape of 20,000 parameters. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/file.h"
#include "core/model.h"
#include "rl/corpus.h"
#include "rl/dataset.h"
#include "rl/pretrain.h"
#include "rl/recipe.h"

#define TOKENIZER SOURCE_DIR "/models/abacus/tokenizer.json"

static char folder[256];

static char *in_folder(const char *name)
{
    static char paths[8][512];
    static int next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static void put(const char *name, const char *text)
{
    Error error;
    assert_int_equal(file_write(in_folder(name), text, strlen(text), &error), STATUS_OK);
}

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "%s/pretrain-XXXXXX",
             getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    char command[512];
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}

#define RECIPE                                                                                     \
    "{\"config\": \"config.json\", \"tokenizer\": \"tokenizer.json\", "                            \
    "\"corpus\": \"corpus.jsonl\", \"output\": \"%s\", \"seed\": 3, \"steps\": %d, "               \
    "\"batch_tokens\": 120, \"lr\": %s, \"warmup_steps\": 5, \"weight_decay\": 0.05, "             \
    "\"beta2\": 0.98, \"grad_clip\": 1.0, \"init_std\": 0.08, \"question_weight\": 0.25}"

static void put_recipe(const char *name, const char *output, int steps, const char *lr)
{
    char text[1024];
    snprintf(text, sizeof text, RECIPE, output, steps, lr);
    put(name, text);
    mkdir(in_folder(output), 0777);
}

/* Pages that a model can learn by heart, of different lengths. */
static void put_files(void)
{
    put("config.json",
        "{\"architectures\": [\"Qwen2ForCausalLM\"], \"model_type\": \"qwen2\", "
        "\"hidden_size\": 24, \"intermediate_size\": 40, \"num_hidden_layers\": 2, "
        "\"num_attention_heads\": 3, \"num_key_value_heads\": 1, \"vocab_size\": 400, "
        "\"max_position_embeddings\": 64, \"rms_norm_eps\": 1e-6, \"rope_theta\": 10000.0, "
        "\"hidden_act\": \"silu\", \"tie_word_embeddings\": true, \"eos_token_id\": 0, "
        "\"torch_dtype\": \"float32\"}");
    put("corpus.jsonl", "{\"page\": [\"\", \"1+2=3\\n4-1=3\\n\"]}\n"
                        "{\"page\": [\"Tom has 4 eggs\", \"#### 4\", \"Ann has 7 pens\", "
                        "\"#### 7\"]}\n\n"
                        "{\"page\": [\"Eva has 2 nuts, gets 5.\", \"2+5=7\\n#### 7\"]}\n");
    char *bytes;
    size_t n;
    Error error;
    assert_int_equal(file_read(&bytes, &n, TOKENIZER, 1 << 20, &error), STATUS_OK);
    assert_int_equal(file_write(in_folder("tokenizer.json"), bytes, n, &error), STATUS_OK);
    free(bytes);
}

static void pages_become_tokens_with_weights_and_an_end_after_each_answer(void **state)
{
    (void)state;
    put_files();
    Tokenizer *tokenizer;
    Corpus corpus;
    Error error;
    assert_int_equal(tokenizer_open(&tokenizer, TOKENIZER, &error), STATUS_OK);
    assert_int_equal(
        corpus_open(&corpus, in_folder("corpus.jsonl"), tokenizer, 399, 0.25, 64, &error),
        STATUS_OK);
    assert_int_equal(corpus.n_pages, 3);
    for (int page = 0; page < 3; page++) {
        assert_int_equal(corpus.ids[corpus.first[page + 1] - 1], 399);
    }
    Text text = {0};
    tokenizer_decode(tokenizer, corpus.ids + corpus.first[2], corpus.first[3] - corpus.first[2] - 1,
                     false, &text);
    assert_string_equal(text_string(&text), "Eva has 2 nuts, gets 5.2+5=7\n#### 7");
    size_t n_ends = 0;
    for (size_t i = corpus.first[1]; i < corpus.first[2]; i++) {
        n_ends += corpus.ids[i] == 399;
    }
    assert_int_equal(n_ends, 2);
    assert_true(corpus.weights[corpus.first[0]] == 1.0f); /* an empty question has no tokens */
    assert_true(corpus.weights[corpus.first[1]] == 0.25f);
    assert_true(corpus.weights[corpus.first[2] - 1] == 1.0f);
    text_release(&text);
    corpus_close(&corpus);
    assert_int_equal(corpus_text(&text, in_folder("corpus.jsonl"), &error), STATUS_OK);
    assert_int_equal(text.n, strlen("1+2=3\n4-1=3\nTom has 4 eggs#### 4Ann has 7 pens#### 7"
                                    "Eva has 2 nuts, gets 5.2+5=7\n#### 7"));
    text_release(&text);
    tokenizer_free(tokenizer);
}

static void a_bad_corpus_is_refused_with_its_line(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"", "corpus: no pages"},
        {"{\"page\": [\"a\", \"b\"]}\n{\"page\": [\"a\"]}\n",
         "corpus, line 2: page of 1 strings, expected question, answer, question, answer ..."},
        {"\n{\"page\": [\"a\", 4]}\n", "corpus, line 2: page[1] is a number, expected a string"},
        {"{\"pages\": [\"a\", \"b\"]}",
         "corpus, line 1: expected an object with one key \"page\", an array of strings"},
        {"{\"page\": [\"1111\", \"1111\"]}",
         "corpus, line 1: page of 9 tokens, the model's context is 8"},
        {"{\"page\": [\"a\", \"b\"]", "corpus, line 1: "},
    };
    Tokenizer *tokenizer;
    Error error;
    assert_int_equal(tokenizer_open(&tokenizer, TOKENIZER, &error), STATUS_OK);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Corpus corpus;
        put("corpus", cases[i][0]);
        assert_int_equal(corpus_open(&corpus, in_folder("corpus"), tokenizer, 0, 1, 8, &error),
                         STATUS_REFUSED);
        const char *message = strstr(error.message, "corpus");
        assert_non_null(message);
        assert_int_equal(strncmp(message, cases[i][1], strlen(cases[i][1])), 0);
    }
    tokenizer_free(tokenizer);
}

static void recipe_keys_are_all_required_and_no_other_is_allowed(void **state)
{
    (void)state;
    static const char *const cases[][3] = {
        {"\"seed\"", "\"sead\"", "recipe.json: unknown key \"sead\""},
        {", \"seed\": 3", "", "recipe.json: key \"seed\": missing"},
        {"\"seed\": 3", "\"seed\": 3.5",
         "recipe.json: key \"seed\": expected an integer from 0 to 9.0072e+15"},
        {"\"beta2\": 0.98", "\"beta2\": \"x\"",
         "recipe.json: key \"beta2\": expected a number from 0.5 to 1"},
        {"\"lr\": 1e-3", "\"lr\": -1", "recipe.json: key \"lr\": expected a number from 0 to 10"},
        {"\"warmup_steps\": 5", "\"warmup_steps\": 50",
         "recipe.json: key \"warmup_steps\": more than \"steps\""},
        {"\"corpus\": \"corpus.jsonl\"", "\"corpus\": 7",
         "recipe.json: key \"corpus\": expected a path"},
        {"{", "[{", "recipe.json"},
    };
    char good[1024], bad[1100];
    snprintf(good, sizeof good, RECIPE, "/out", 10, "1e-3");
    Recipe recipe;
    Error error;
    put("recipe.json", good);
    assert_int_equal(recipe_read(&recipe, in_folder("recipe.json"), &error), STATUS_OK);
    assert_string_equal(recipe.corpus, in_folder("corpus.jsonl"));
    assert_string_equal(recipe.output, "/out");
    assert_int_equal(recipe.seed, 3);
    assert_int_equal(recipe.warmup_steps, 5);
    assert_true(recipe.question_weight == 0.25);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *place = strstr(good, cases[i][0]);
        assert_non_null(place);
        snprintf(bad, sizeof bad, "%.*s%s%s", (int)(place - good), good, cases[i][1],
                 place + strlen(cases[i][0]));
        put("recipe.json", bad);
        assert_int_equal(recipe_read(&recipe, in_folder("recipe.json"), &error), STATUS_USAGE);
        assert_non_null(strstr(error.message, cases[i][2]));
    }
}

typedef struct {
    double first_loss, last_loss, last_rate;
    int64_t n_steps, stop_at;
} Watch;

static int watch(void *context, const PretrainProgress *progress)
{
    Watch *w = context;
    w->first_loss = w->n_steps++ == 0 ? progress->loss : w->first_loss;
    w->last_loss = progress->loss;
    w->last_rate = progress->rate;
    return progress->step == w->stop_at;
}

static void assert_same_model(const char *a, const char *b)
{
    char *x, *y;
    size_t n, m;
    char name[64];
    Error error;
    snprintf(name, sizeof name, "%s/model.safetensors", a);
    assert_int_equal(file_read(&x, &n, in_folder(name), 1 << 24, &error), STATUS_OK);
    snprintf(name, sizeof name, "%s/model.safetensors", b);
    assert_int_equal(file_read(&y, &m, in_folder(name), 1 << 24, &error), STATUS_OK);
    assert_int_equal(n, m);
    assert_memory_equal(x, y, n);
    free(x);
    free(y);
}

static void a_corpus_is_learnt_by_heart(void **state)
{
    (void)state;
    put_files();
    put_recipe("recipe.json", "learnt", 120, "1e-2");
    Watch w = {.stop_at = -1};
    Error error;
    assert_int_equal(pretrain_run(in_folder("recipe.json"), 1, watch, &w, &error), STATUS_OK);
    assert_int_equal(w.n_steps, 120);
    /* Uniform over 400 tokens is 5.99 nats; nothing but the questions' first tokens stays unsure.
     */
    assert_true(fabs(w.first_loss - log(400)) < 0.2);
    assert_true(w.last_loss < 0.25);
    assert_true(w.last_rate < 1e-4 && w.last_rate > 0);
    Model *model;
    assert_int_equal(model_open(&model, in_folder("learnt"), 1, &error), STATUS_OK);
    assert_non_null(model->tokenizer);
    model_free(model);
}

static void threads_and_interruptions_change_no_bit(void **state)
{
    (void)state;
    put_files();
    static const char *const outputs[] = {"one", "two", "stopped"};
    Error error;
    for (int i = 0; i < 3; i++) {
        put_recipe("recipe.json", outputs[i], 12, "1e-2");
        Watch w = {.stop_at = i == 2 ? 7 : -1};
        Status status = pretrain_run(in_folder("recipe.json"), i == 1 ? 2 : 1, watch, &w, &error);
        if (i == 2) {
            assert_int_equal(status, STATUS_STOPPED);
            assert_string_equal(error.message, "stopped after step 7");
            assert_false(file_exists(in_folder("stopped/model.safetensors")));
            Watch rest = {.stop_at = -1};
            status = pretrain_run(in_folder("recipe.json"), 1, watch, &rest, &error);
            assert_int_equal(rest.n_steps, 5);
        }
        assert_int_equal(status, STATUS_OK);
    }
    assert_same_model("one", "two");
    assert_same_model("one", "stopped");
}

static void a_diverged_loss_fails_and_writes_no_model(void **state)
{
    (void)state;
    put_files();
    char text[1200];
    snprintf(text, sizeof text, RECIPE, "diverged", 40, "10");
    char *clip = strstr(text, "\"weight_decay\": 0.05");
    memcpy(clip, "\"weight_decay\": 10.0", strlen("\"weight_decay\": 10.0"));
    put("recipe.json", text); /* weights grow by a factor of 99 a step */
    mkdir(in_folder("diverged"), 0777);
    Error error;
    assert_int_equal(pretrain_run(in_folder("recipe.json"), 1, NULL, NULL, &error), STATUS_FAILED);
    assert_non_null(strstr(error.message, "the loss is not finite"));
    assert_int_equal(strncmp(error.message, "step ", 5), 0);
    assert_false(file_exists(in_folder("diverged/model.safetensors")));
}

static void a_vocabulary_smaller_than_the_tokenizer_is_refused(void **state)
{
    (void)state;
    put_files();
    char *bytes, *place;
    size_t n;
    Error error;
    assert_int_equal(file_read(&bytes, &n, in_folder("config.json"), 1 << 20, &error), STATUS_OK);
    place = strstr(bytes, "400");
    memcpy(place, "300", 3);
    put("config.json", bytes);
    free(bytes);
    put_recipe("recipe.json", "small", 5, "1e-2");
    assert_int_equal(pretrain_run(in_folder("recipe.json"), 1, NULL, NULL, &error), STATUS_USAGE);
    assert_non_null(strstr(error.message, "tokenizer.json: "));
    assert_non_null(strstr(error.message, " is 300"));
}

static void a_missing_tokenizer_is_trained_on_the_corpus(void **state)
{
    (void)state;
    put_files();
    put_recipe("recipe.json", "own", 5, "1e-2");
    unlink(in_folder("tokenizer.json"));
    Tokenizer *tokenizer;
    Error error;
    assert_int_equal(pretrain_run(in_folder("recipe.json"), 1, NULL, NULL, &error), STATUS_OK);
    assert_int_equal(tokenizer_open(&tokenizer, in_folder("own/tokenizer.json"), &error),
                     STATUS_OK);
    int32_t end = tokenizer_id(tokenizer, "<|endoftext|>");
    assert_int_equal(end, tokenizer_size(tokenizer) - 1);
    assert_true(end > 256 && end < 400);
    assert_true(tokenizer_id(tokenizer, "####") > 255);
    tokenizer_free(tokenizer);
}

static void an_end_of_sequence_that_is_no_token_is_refused(void **state)
{
    (void)state;
    put_files();
    char *bytes;
    size_t n;
    Error error;
    assert_int_equal(file_read(&bytes, &n, in_folder("config.json"), 1 << 20, &error), STATUS_OK);
    char *place = strstr(bytes, "\"eos_token_id\": 0,");
    memcpy(place, "\"eos_token_id\":399,", strlen("\"eos_token_id\":399,"));
    put("config.json", bytes);
    free(bytes);
    put_recipe("recipe.json", "endless", 5, "1e-2");
    assert_int_equal(pretrain_run(in_folder("recipe.json"), 1, NULL, NULL, &error), STATUS_USAGE);
    assert_non_null(strstr(error.message, "config.json: eos_token_id 399 is no token of "));
}

static int compare_questions(const void *a, const void *b)
{
    return strcmp(((const DataRow *)a)->question, ((const DataRow *)b)->question);
}

static void abacus_is_small_and_its_rows_are_well_formed_and_disjoint(void **state)
{
    (void)state;
    static const char *const names[] = {"train", "dev", "test"};
    Dataset sets[3];
    DataRow *all = NULL;
    size_t n = 0;
    Error error;
    for (int i = 0; i < 3; i++) {
        char path[512];
        int n_rows;
        snprintf(path, sizeof path, SOURCE_DIR "/models/abacus/%s.jsonl", names[i]);
        assert_int_equal(dataset_verify(path, &n_rows, NULL, &error), STATUS_OK);
        assert_int_equal(dataset_open(&sets[i], path, "question", "answer", &error), STATUS_OK);
        size_t rows = (size_t)sets[i].n_rows;
        assert_true(n_rows >= (i == 1 ? 500 : 1000));
        all = realloc(all, (n + rows) * sizeof *all);
        memcpy(all + n, sets[i].rows, rows * sizeof *all);
        n += rows;
    }
    qsort(all, n, sizeof *all, compare_questions);
    for (size_t i = 1; i < n; i++) {
        assert_int_not_equal(strcmp(all[i - 1].question, all[i].question), 0);
    }
    free(all);
    for (int i = 0; i < 3; i++) {
        dataset_close(&sets[i]);
    }
    Model *model;
    struct stat file;
    assert_int_equal(model_open(&model, SOURCE_DIR "/models/abacus", 1, &error), STATUS_OK);
    assert_int_equal(model->config.architecture, ARCHITECTURE_QWEN2);
    assert_true(model->n_parameters > 400000 && model->n_parameters <= 1500000);
    assert_int_equal(stat(SOURCE_DIR "/models/abacus/model.safetensors", &file), 0);
    assert_true(file.st_size <= 3000000);
    model_free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_become_tokens_with_weights_and_an_end_after_each_answer),
        cmocka_unit_test(a_bad_corpus_is_refused_with_its_line),
        cmocka_unit_test(recipe_keys_are_all_required_and_no_other_is_allowed),
        cmocka_unit_test(a_corpus_is_learnt_by_heart),
        cmocka_unit_test(threads_and_interruptions_change_no_bit),
        cmocka_unit_test(a_diverged_loss_fails_and_writes_no_model),
        cmocka_unit_test(a_vocabulary_smaller_than_the_tokenizer_is_refused),
        cmocka_unit_test(a_missing_tokenizer_is_trained_on_the_corpus),
        cmocka_unit_test(an_end_of_sequence_that_is_no_token_is_refused),
        cmocka_unit_test(abacus_is_small_and_its_rows_are_well_formed_and_disjoint),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
