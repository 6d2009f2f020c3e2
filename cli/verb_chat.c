/* tinylora chat: a question a line, an answer each; with an adapter two answers, of the base model
 * and of the adapter, each with a conversation of its own. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/sampling.h"
#include "cli/use.h"
#include "cli/verbs.h"
#include "rl/prompt.h"

enum { MAX_LINE = 1 << 20, MAX_STOP = 16 };

/* ---- lines of standard input ---------------------------------------------------------------- */

typedef struct {
    Text bytes;  /* read and not yet taken */
    size_t seen; /* of them without a newline */
    bool ended;
    int line;
} Lines;

/* The next line without its end; false at the end of the input. */
static Status next_line(Lines *lines, Text *out, bool *any, Error *error)
{
    text_clear(out);
    for (;;) {
        size_t n = lines->bytes.n;
        const char *end = n > lines->seen
                              ? memchr(lines->bytes.bytes + lines->seen, '\n', n - lines->seen)
                              : NULL;
        if (end || (lines->ended && n)) {
            size_t length = end ? (size_t)(end - lines->bytes.bytes) : n;
            size_t taken = length + (end != NULL);
            size_t shown = length && lines->bytes.bytes[length - 1] == '\r' ? length - 1 : length;
            text_append(out, lines->bytes.bytes, shown);
            memmove(lines->bytes.bytes, lines->bytes.bytes + taken, n - taken);
            lines->bytes.n = n - taken;
            lines->seen = 0;
            lines->line++;
            *any = true;
            return STATUS_OK;
        }
        lines->seen = n;
        *any = false;
        if (lines->ended) {
            return STATUS_OK;
        }
        if (n > MAX_LINE) {
            return error_set(error, STATUS_REFUSED, "standard input line %d: over %d bytes",
                             lines->line + 1, MAX_LINE);
        }
        struct pollfd wait = {.fd = STDIN_FILENO, .events = POLLIN};
        if (cli_stopping() || (poll(&wait, 1, -1) < 0 && cli_stopping())) {
            return error_set(error, STATUS_STOPPED, "stopped while waiting for a line");
        }
        char block[4096];
        ssize_t got = read(STDIN_FILENO, block, sizeof block);
        if (got < 0 && errno != EINTR) {
            return error_set(error, STATUS_FAILED, "standard input: %s", strerror(errno));
        }
        lines->ended = got == 0;
        text_append(&lines->bytes, block, got > 0 ? (size_t)got : 0);
    }
}

/* ---- a conversation -------------------------------------------------------------------------- */

/* The base model, or it with the adapter. */
typedef struct {
    char label[96];
    int adapter;
    ChatMessage *messages; /* (n) their texts are owned */
    int n;
} Voice;

typedef struct {
    const Cli *cli;
    const Use *use;
    const Sampling *sampling;
    const char *system; /* NULL: none given */
    PromptTemplate *template_;
    Voice voices[2];
    int n_voices;
    int turn;
    int32_t stop_ids[MAX_STOP];
    int n_stop;
} Talk;

static Status add_message(Voice *voice, ChatRole role, const char *text, size_t n, Error *error)
{
    ChatMessage *messages =
        realloc(voice->messages, ((size_t)voice->n + 1) * sizeof *voice->messages);
    char *copy = malloc(n + 1);
    voice->messages = messages ? messages : voice->messages;
    if (!messages || !copy) {
        free(copy);
        return error_set(error, STATUS_FAILED, "out of memory");
    }
    memcpy(copy, text, n);
    copy[n] = 0;
    messages[voice->n++] = (ChatMessage){role, copy, n};
    /* cppcheck-suppress memleak ; the voice has both */
    return STATUS_OK;
}

/* Forgets all but the first n messages. */
static void cut_messages(Voice *voice, int n)
{
    while (voice->n > n) {
        free((char *)(uintptr_t)voice->messages[--voice->n].text);
    }
}

static Status begin(Talk *talk, Error *error)
{
    Status status = STATUS_OK;
    talk->turn = 0;
    for (int i = 0; i < talk->n_voices && !status; i++) {
        cut_messages(&talk->voices[i], 0);
        if (talk->system) {
            status = add_message(&talk->voices[i], CHAT_SYSTEM, talk->system, strlen(talk->system),
                                 error);
        }
    }
    return status;
}

typedef struct {
    const Talk *talk;
    Stream stream;
    bool shown; /* on stdout as it comes */
    Completion completion;
} Answer;

static int on_progress(void *context, int n_finished, int n_requests, long n_tokens)
{
    Answer *answer = context;
    (void)n_tokens;
    if (answer->shown) {
        stream_write(&answer->stream, &answer->completion, n_finished == n_requests);
    }
    return cli_stopping() || answer->stream.status;
}

static Status generate_answer(Answer *answer, const Voice *voice, int *n_prompt, Error *error)
{
    const Talk *talk = answer->talk;
    const Model *model = talk->use->session.bench.model;
    Prompt prompt = {0};
    Status status = prompt_encode_chat(&prompt, talk->template_, voice->messages, voice->n, error);
    if (!status && prompt.n >= model->config.max_positions) {
        status = error_set(error, STATUS_USAGE,
                           "the conversation has %d tokens, which leave no room in the model's "
                           "context of %d; /reset begins anew",
                           prompt.n, model->config.max_positions);
    }
    if (!status) {
        GenerateRequest request =
            sampling_request(talk->sampling, prompt.ids, prompt.n, voice->adapter);
        request.step = (uint32_t)talk->turn;
        GenerateOptions options = {.stop_ids = talk->stop_ids,
                                   .n_stop = talk->n_stop,
                                   .progress = on_progress,
                                   .progress_context = answer};
        sampling_stops(&options, talk->sampling);
        status = generate(talk->use->session.bench.engine, session_hook(&talk->use->session),
                          &request, 1, &options, &answer->completion, error);
        *n_prompt = prompt.n;
    }
    if (answer->stream.status) {
        *error = answer->stream.error;
        status = answer->stream.status;
    }
    prompt_release(&prompt);
    return status ? status : sampling_check_finite(&answer->completion, 1, error);
}

/* One voice's answer to the last question: kept as its message; json: appended as an object, NULL:
 * printed as it comes. */
static Status answer_one(Talk *talk, Voice *voice, Text *json, Error *error)
{
    const Tokenizer *tokenizer = talk->use->session.bench.model->tokenizer;
    Answer answer = {.talk = talk,
                     .stream = {.sampling = talk->sampling, .tokenizer = tokenizer},
                     .shown = !json};
    Text text = {0};
    int n_prompt = 0;
    Status status = STATUS_OK;
    if (!json && talk->n_voices > 1) {
        text_printf(&text, "%s: ", voice->label);
        status = cli_write(text_string(&text), text.n, error);
    }
    status = status ? status : generate_answer(&answer, voice, &n_prompt, error);
    if (!status) {
        text_clear(&text);
        sampling_text(&text, talk->sampling, tokenizer, &answer.completion);
        status = add_message(voice, CHAT_ASSISTANT, text_string(&text), text.n, error);
    }
    if (!status && json) {
        text_add(json, "{\"by\": ");
        text_json_string(json, voice->label, strlen(voice->label));
        text_printf(json, ", \"n_prompt\": %d, ", n_prompt);
        sampling_json(json, talk->sampling, tokenizer, &answer.completion);
        text_add(json, "}");
    } else if (!status) {
        status = cli_write("\n", 1, error);
    }
    text_release(&text);
    completion_release(&answer.completion);
    return status;
}

static Status take_turn(Talk *talk, const Text *question, Error *error)
{
    bool json = talk->cli->format == FORMAT_JSON || talk->cli->format == FORMAT_JSONL;
    int before[2] = {talk->voices[0].n, talk->voices[1].n};
    Text out = {0};
    Status status = STATUS_OK;
    if (json) {
        text_printf(&out, "{\"turn\": %d, \"user\": ", talk->turn + 1);
        text_json_string(&out, question->bytes, question->n);
        text_add(&out, ", \"answers\": [");
    }
    for (int i = 0; i < talk->n_voices && !status; i++) {
        Voice *voice = &talk->voices[i];
        text_add(&out, json && i ? ", " : "");
        status = add_message(voice, CHAT_USER, question->bytes, question->n, error);
        status = status ? status : answer_one(talk, voice, json ? &out : NULL, error);
    }
    text_add(&out, json ? "]}\n" : "\n");
    status = status ? status : cli_write_now(text_string(&out), out.n, error);
    for (int i = 0; i < talk->n_voices && status; i++) {
        /* NOLINTNEXTLINE(clang-analyzer-core.CallAndMessage): there are no more than two */
        cut_messages(&talk->voices[i], before[i]);
    }
    talk->turn += !status;
    text_release(&out);
    return status;
}

/* A person at a terminal may say it otherwise; in a pipe a line that cannot be answered ends it. */
static bool may_go_on(Status status)
{
    return (status == STATUS_REFUSED || status == STATUS_USAGE) && isatty(STDIN_FILENO);
}

static Status talk_on(Talk *talk, Error *error)
{
    Lines lines = {0};
    Text line = {0};
    Status status = begin(talk, error);
    bool any = true, asks = isatty(STDIN_FILENO) && isatty(STDERR_FILENO) && !talk->cli->quiet;
    while (!status) {
        if (asks) {
            fputs("> ", stderr);
        }
        status = next_line(&lines, &line, &any, error);
        if (status || !any || strcmp(text_string(&line), "/exit") == 0) {
            break;
        }
        if (strcmp(text_string(&line), "/reset") == 0) {
            status = begin(talk, error);
        } else if (line.n) {
            status = take_turn(talk, &line, error);
        }
        if (status && may_go_on(status)) {
            cli_note(talk->cli, "tinylora: chat: %s", error->message);
            status = STATUS_OK;
        } else if (status == STATUS_REFUSED) {
            error_context(error, status, "standard input line %d", lines.line);
        }
    }
    text_release(&line);
    text_release(&lines.bytes);
    return status;
}

/* ---- setting up ------------------------------------------------------------------------------ */

/* The template of that name; NULL: the model's own, else plain. */
static Status choose_template(Talk *talk, const char *name, Error *error)
{
    const Model *model = talk->use->session.bench.model;
    ModelChat own;
    Text warning = {0};
    Status status = chat_of_model(&own, talk->use->session.bench.directory, error);
    if (status) {
        return status;
    }
    if (!name && own.known) {
        name = own.known->name;
    } else if (!name && own.sha256[0]) {
        text_printf(&warning,
                    "the model's chat template (sha256 %.12s..) is not a known one: questions are "
                    "put plainly; --template names one of %s",
                    own.sha256, chat_template_names());
    } else if (name) {
        chat_warn(&warning, &own, name);
    }
    if (warning.n) {
        cli_note(talk->cli, "tinylora: chat: %s", text_string(&warning));
    }
    text_release(&warning);
    name = name ? name : "plain";
    if (talk->system && !chat_template_find(name)) {
        return error_set(error, STATUS_USAGE,
                         "--system: the template \"%.100s\" has no place for it", name);
    }
    status = prompt_template_new(&talk->template_, model, name, error);
    if (!status) {
        int32_t end = prompt_template_turn_end(talk->template_);
        _Static_assert(MAX_STOP > sizeof model->config.eos_ids / sizeof(int32_t), "and one more");
        for (int i = 0; i < model->config.n_eos; i++) {
            talk->stop_ids[talk->n_stop++] = model->config.eos_ids[i];
        }
        if (end >= 0) {
            talk->stop_ids[talk->n_stop++] = end;
        }
    }
    return status;
}

static void choose_voices(Talk *talk, const UseOptions *used)
{
    const Use *use = talk->use;
    bool adapted = used->run || used->surface || used->adapter;
    snprintf(talk->voices[0].label, sizeof talk->voices[0].label, "base");
    talk->n_voices = 1;
    if (adapted && use->session.adapter) {
        talk->voices[1].adapter = use->session.adapter;
        talk->n_voices = 2;
    } else if (adapted) {
        cli_note(talk->cli, "tinylora: chat: the adapter is in the weights: the base model is not "
                            "there to answer beside it");
    }
    if (adapted) {
        snprintf(talk->voices[talk->n_voices - 1].label, sizeof talk->voices[0].label, "%.90s",
                 use->adapter.name);
    }
}

static Status run(Cli *cli, int argc, char **argv, Error *error)
{
    UseOptions used = {0};
    Sampling sampling = SAMPLING_DEFAULT;
    const char *template_name = NULL;
    Use use = {0};
    Talk talk = {.cli = cli, .use = &use, .sampling = &sampling};
    const Option options[] = {
        USE_OPTIONS(used),
        SAMPLING_OPTIONS(sampling),
        {"--system", OPTION_TEXT, &talk.system, 0, 0},
        {"--template", OPTION_TEXT, &template_name, 0, 0},
    };
    Status status = options_parse(cli, options, sizeof options / sizeof options[0], argc, argv,
                                  NULL, 0, 0, error);
    status = status ? status : sampling_check(&sampling, error);
    status = status ? status : use_open(&use, cli, &used, error);
    if (!status && !template_name && (used.run || used.surface)) {
        template_name = use.adapter.spec.data.template;
    }
    status = status ? status : choose_template(&talk, template_name, error);
    if (!status) {
        choose_voices(&talk, &used);
        status = talk_on(&talk, error);
    }
    for (int i = 0; i < talk.n_voices; i++) {
        cut_messages(&talk.voices[i], 0);
        free(talk.voices[i].messages);
    }
    /* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): each voice was released */
    prompt_template_free(talk.template_);
    use_close(&use);
    return status;
}

const Verb verb_chat = {
    .name = "chat",
    .summary = "talks with a model, with and without an adapter side by side",
    .usage = "--model MODEL [--run RUN | --surface S --at P | --adapter DIR] [--system S] "
             "[--template T] [--greedy | --temperature T --top-p P --top-k K --min-p P] "
             "[--repetition-penalty R] [--stop S]... [--max-new N] [--seed N]",
    .help =
        "A line is a question, from a terminal or a pipe; /reset begins anew, /exit or the "
        "input's\n"
        "end ends. With an adapter each question has two answers. With -o json a line a turn.\n\n"
        "  --system S        the system message\n"
        "  --template T      chatml, qwen2.5, qwen3, smollm2, llama3, llama2, plain, or a text\n"
        "                    with {question}; unless given the run's, without a run the model's\n"
        "                    own. Without a chat template each question stands alone\n" USE_HELP
            SAMPLING_HELP "\nexamples:\n"
        "  tinylora chat --model ../Qwen2.5-0.5B-Instruct --run 3f2a --temperature 0.7\n"
        "  tinylora chat --model abacus --greedy -o json < questions.txt\n",
    .run = run,
};
