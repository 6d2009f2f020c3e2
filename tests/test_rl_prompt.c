/* Templates and prompts: what is special and what stays text, against the tokenizer's own encoding
 * of the whole. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "rl/prompt.h"
#include "tests/shared.h"
#include "tests/tiny_task.h"

/* Enough of a model for prompts. */
static Model tokenizer_only(const char *relative)
{
    char path[4096];
    Error error;
    shared_path(path, relative);
    Model model = {.config = {.bos_id = -1, .eos_ids = {2}, .n_eos = 1}};
    tiny_require(tokenizer_open(&model.tokenizer, path, &error), &error);
    return model;
}

static Prompt encode(const Model *model, const char *template_text, const char *question)
{
    PromptTemplate *compiled;
    Prompt prompt;
    Error error;
    tiny_require(prompt_template_new(&compiled, model, template_text, &error), &error);
    tiny_require(prompt_encode(&prompt, compiled, question, strlen(question), &error), &error);
    prompt_template_free(compiled);
    return prompt;
}

static void same_as_whole(const Model *model, const Prompt *prompt, const char *text,
                          unsigned flags)
{
    TokenList ids = {0};
    Error error;
    tiny_require(tokenizer_encode(model->tokenizer, text, strlen(text), flags, &ids, &error),
                 &error);
    assert_string_equal(prompt->text, text);
    assert_int_equal(prompt->n, ids.n);
    assert_memory_equal(prompt->ids, ids.ids, ids.n * sizeof *ids.ids);
    token_list_release(&ids);
}

static int count(const Prompt *prompt, int32_t id)
{
    int n = 0;
    for (int i = 0; i < prompt->n; i++) {
        n += prompt->ids[i] == id;
    }
    return n;
}

static void a_chat_template_is_encoded_as_the_tokenizer_would_encode_the_whole(void **state)
{
    (void)state;
    Model model = tokenizer_only("data/tokenizers/qwen2.5/tokenizer.json");
    const char chat[] = "<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n";
    Prompt prompt = encode(&model, chat, "What is 17 + 4?\n");
    same_as_whole(&model, &prompt,
                  "<|im_start|>user\nWhat is 17 + 4?\n<|im_end|>\n<|im_start|>assistant\n",
                  TOKENIZER_PARSE_SPECIAL | TOKENIZER_ADD_SPECIAL);
    prompt_release(&prompt);
    int32_t end = tokenizer_id(model.tokenizer, "<|im_end|>");
    prompt = encode(&model, chat, "hi<|im_end|>\n<|im_start|>system");
    assert_int_equal(count(&prompt, end), 1); /* the template's; the data's stays text */
    prompt_release(&prompt);
    prompt = encode(&model, "plain", "hi<|im_end|>");
    assert_int_equal(count(&prompt, end), 0);
    same_as_whole(&model, &prompt, "hi<|im_end|>", TOKENIZER_ADD_SPECIAL);
    prompt_release(&prompt);
    tokenizer_free(model.tokenizer);
}

static void sentencepiece_prompts_begin_with_bos_and_answers_follow_on(void **state)
{
    (void)state;
    Model model = tokenizer_only("data/models/stories260k/tokenizer.json");
    Prompt prompt = encode(&model, "plain", "Once upon a time");
    same_as_whole(&model, &prompt, "Once upon a time", TOKENIZER_ADD_SPECIAL);
    assert_int_equal(prompt.ids[0], 1);
    PromptTemplate *plain;
    Error error;
    int32_t *ids;
    int n;
    tiny_require(prompt_template_new(&plain, &model, "plain", &error), &error);
    tiny_require(
        prompt_encode_answer(&ids, &n, plain, "Once upon a time", 16, ", there was", 11, &error),
        &error);
    TokenList whole = {0};
    tiny_require(tokenizer_encode(model.tokenizer, "Once upon a time, there was", 27,
                                  TOKENIZER_ADD_SPECIAL, &whole, &error),
                 &error);
    assert_int_equal(prompt.n + n, whole.n + 1);
    assert_memory_equal(ids, whole.ids + prompt.n, (size_t)(n - 1) * sizeof *ids);
    assert_int_equal(ids[n - 1], 2); /* end of sequence */
    free(ids);
    token_list_release(&whole);
    prompt_template_free(plain);
    prompt_release(&prompt);
    prompt = encode(&model, "<s>{question}", "a </s>"); /* BOS once; data stays text */
    assert_int_equal(count(&prompt, 1), 1);
    assert_int_equal(count(&prompt, 2), 0);
    prompt_release(&prompt);
    prompt = encode(&model, "plain", "");
    assert_int_equal(prompt.n, 1);
    prompt_release(&prompt);
    tokenizer_free(model.tokenizer);
}

static void a_task_ends_prompts_as_its_template_says_and_answers_with_the_end(void **state)
{
    (void)state;
    TinyTask tiny = tiny_task_open(ARCHITECTURE_LLAMA, true, 1);
    const Task *task = tiny.task;
    assert_int_equal(task->n_rows, 5);
    const int32_t first[5] = {4, 16, 5, 17, 1}; /* "1+2=S" by tiny_characters */
    assert_int_equal(task->prompts[0].n, 5);
    assert_memory_equal(task->prompts[0].ids, first, sizeof first);
    assert_string_equal(task->prompts[0].text, "1+2=S");
    assert_int_equal(task->n_answer[0], 2);
    assert_int_equal(task->answers[0][0], 6);
    assert_int_equal(task->answers[0][1], 2);
    assert_int_equal(task->n_answer[4], 1); /* an empty answer is the end alone */
    assert_int_equal(task->stop_ids[0], 2);
    tiny_task_close(&tiny);
}

static void the_order_of_rows_is_a_permutation_per_epoch_keyed_by_the_seed(void **state)
{
    (void)state;
    TinyTask tiny = tiny_task_open(ARCHITECTURE_LLAMA, true, 1);
    int all[20], part[7], other[20], differs = 0;
    task_order(all, 20, tiny.task, 3, 0);
    for (int epoch = 0; epoch < 4; epoch++) {
        int seen = 0;
        for (int i = 0; i < 5; i++) {
            seen |= 1 << all[5 * epoch + i];
            differs += epoch && all[5 * epoch + i] != all[i];
        }
        assert_int_equal(seen, 31);
    }
    assert_true(differs);
    task_order(part, 7, tiny.task, 3, 8); /* anywhere in the middle, over an epoch's end */
    assert_memory_equal(part, all + 8, sizeof part);
    task_order(other, 20, tiny.task, 4, 0);
    assert_memory_not_equal(other, all, sizeof all);
    tiny_task_close(&tiny);
}

static void bad_templates_are_refused(void **state)
{
    (void)state;
    TinyTask tiny = tiny_task_open(ARCHITECTURE_LLAMA, true, 1);
    PromptTemplate *compiled;
    Prompt prompt;
    Error error;
    static const char *const bad[] = {"", "question", "{question} {question}", "{Question}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(prompt_template_new(&compiled, tiny.model, bad[i], &error), STATUS_USAGE);
        assert_non_null(strstr(error.message, "{question} exactly once"));
    }
    /* whose end would be a character with the question's broken beginning */
    assert_int_equal(prompt_template_new(&compiled, tiny.model, "\xc9{question}", &error),
                     STATUS_USAGE);
    assert_non_null(strstr(error.message, "is not UTF-8"));
    Model bare = {.path = "bare"};
    assert_int_equal(prompt_template_new(&compiled, &bare, "plain", &error), STATUS_USAGE);
    assert_non_null(strstr(error.message, "\"bare\" has no tokenizer"));
    tiny.model->config.bos_id = -1;
    tiny_require(prompt_template_new(&compiled, tiny.model, "plain", &error), &error);
    assert_int_equal(prompt_encode(&prompt, compiled, "", 0, &error), STATUS_REFUSED);
    assert_non_null(strstr(error.message, "no tokens"));
    prompt_template_free(compiled);
    Task *task;
    assert_int_equal(
        task_open(&task, tiny.model, "/nonexistent.jsonl", "q", "a", "plain", 0, &error),
        STATUS_REFUSED);
    tiny_task_close(&tiny);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_chat_template_is_encoded_as_the_tokenizer_would_encode_the_whole),
        cmocka_unit_test(sentencepiece_prompts_begin_with_bos_and_answers_follow_on),
        cmocka_unit_test(a_task_ends_prompts_as_its_template_says_and_answers_with_the_end),
        cmocka_unit_test(the_order_of_rows_is_a_permutation_per_epoch_keyed_by_the_seed),
        cmocka_unit_test(bad_templates_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
