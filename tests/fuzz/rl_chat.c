/* Any bytes as tokenizer_config.json; after a NUL a template of the user's; after each NUL then a
 * message. What a model brings is recognised or refused; a prompt has the special tokens that its
 * template writes, whatever the messages say. */
#include "rl/chat.h"

#include <stdlib.h>
#include <string.h>

#include "rl/prompt.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/memory.h"
#include "tests/fuzz/small_tokenizer.h"

enum { MAX_MESSAGES = 6 };
static const char *const names[] = {"plain",   "chatml", "qwen2.5", "qwen3",
                                    "smollm2", "llama3", "llama2"};
enum { N_NAMES = sizeof names / sizeof *names };

static void recognise(const void *bytes, size_t n)
{
    char path[96];
    ModelChat chat;
    Text warning = {0};
    memory_folder_file(path, "tokenizer_config.json", bytes, n);
    Status status = chat_of_model(&chat, memory_folder(), NULL);
    if (status == STATUS_OK) {
        chat_warn(&warning, &chat, "qwen2.5");
        text_release(&warning);
    } else if (status != STATUS_REFUSED) {
        abort();
    }
}

/* How many special tokens; -1: refused. */
static int count_specials(const PromptTemplate *made, const ChatMessage *messages, int n)
{
    Prompt prompt;
    int specials = 0;
    Status status = prompt_encode_chat(&prompt, made, messages, n, NULL);
    if (status != STATUS_OK) {
        return -1;
    }
    for (int i = 0; i < prompt.n; i++) {
        if (prompt.ids[i] < 0) {
            abort();
        }
        specials += prompt.ids[i] >= SMALL_SPECIAL;
    }
    if (prompt.text[prompt.n_text] != 0) {
        abort();
    }
    prompt_release(&prompt);
    return specials;
}

static void use(const PromptTemplate *made, const ChatMessage *messages, int n)
{
    ChatMessage plain[MAX_MESSAGES + 1];
    for (int i = 0; i < n; i++) {
        plain[i] = (ChatMessage){messages[i].role, "x", 1};
    }
    int specials = count_specials(made, messages, n);
    if (specials >= 0 && specials != count_specials(made, plain, n)) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static Model model;
    static PromptTemplate *known[N_NAMES];
    if (!model.tokenizer) {
        model.tokenizer = small_tokenizer();
        model.config.bos_id = -1;
        for (int i = 0; i < N_NAMES; i++) {
            if (prompt_template_new(&known[i], &model, names[i], NULL) != STATUS_OK) {
                abort();
            }
        }
    }
    const uint8_t *rest;
    size_t n_rest, n_config = first_part(&rest, &n_rest, bytes, n);
    recognise(bytes, n_config);

    PromptTemplate *own = NULL;
    ChatMessage messages[MAX_MESSAGES + 1] = {{CHAT_SYSTEM, "", 0}};
    int n_messages = 0;
    const uint8_t *text = rest;
    size_t n_text = first_part(&rest, &n_rest, text, n_rest);
    char *copy = strndup((const char *)text, n_text);
    if (!copy) {
        abort();
    }
    while (n_rest && n_messages < MAX_MESSAGES) {
        ChatRole role = n_messages % 2 ? CHAT_ASSISTANT : CHAT_USER;
        const char *message = (const char *)rest;
        size_t n_message = first_part(&rest, &n_rest, rest, n_rest);
        messages[++n_messages] = (ChatMessage){role, message, n_message};
    }
    messages[0].text = copy;
    messages[0].n = strlen(copy);
    if (n_messages) {
        const PromptTemplate *made = known[n % N_NAMES]; /* all of them take too long */
        use(made, messages, n_messages + 1);
        use(made, messages + 1, n_messages);
        if (prompt_template_new(&own, &model, copy, NULL) == STATUS_OK) {
            use(own, messages + 1, n_messages);
            prompt_template_free(own);
        }
    }
    free(copy);
    return 0;
}
