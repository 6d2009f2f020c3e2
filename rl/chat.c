/* The templates, a function each, and the recognition of a model's own. */
#include "rl/chat.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/file.h"
#include "core/gguf.h"
#include "core/json.h"
#include "core/unicode.h"

enum { MAX_CONFIG_BYTES = 64 << 20, MAX_TEMPLATE_BYTES = 4 << 20 };

/* ---- parts --------------------------------------------------------------------------------- */

void chat_parts_release(ChatParts *parts)
{
    free(parts->parts);
    *parts = (ChatParts){0};
}

void chat_parts_add(ChatParts *parts, const char *text, size_t n, bool of_message)
{
    if (n == 0) {
        return;
    }
    if (parts->n == parts->capacity) {
        parts->capacity = parts->capacity ? 2 * parts->capacity : 16;
        parts->parts = realloc(parts->parts, (size_t)parts->capacity * sizeof *parts->parts);
        if (!parts->parts) {
            abort(); /* as Text: a few words a message in memory */
        }
    }
    parts->parts[parts->n++] = (ChatPart){text, n, of_message};
}

void chat_parts_text(Text *out, const ChatParts *parts)
{
    for (int i = 0; i < parts->n; i++) {
        text_append(out, parts->parts[i].text, parts->parts[i].n);
    }
}

static void literal(ChatParts *parts, const char *text)
{
    chat_parts_add(parts, text, strlen(text), false);
}

/* What Python's str.strip takes for a space: White_Space, and the separators 1c to 1f. */
static bool is_strip_space(int32_t c)
{
    return (c >= 0x1c && c <= 0x1f) || unicode_class(c) == UNICODE_SPACE;
}

static ChatMessage strip_front(ChatMessage message)
{
    while (message.n) {
        int32_t c;
        size_t length = utf8_decode(&c, message.text, message.n);
        if (!length || !is_strip_space(c)) {
            break;
        }
        message.text += length;
        message.n -= length;
    }
    return message;
}

static ChatMessage strip_back(ChatMessage message)
{
    while (message.n) {
        size_t at = message.n - 1;
        while (at && ((unsigned char)message.text[at] & 0xc0) == 0x80) {
            at--;
        }
        int32_t c;
        if (!utf8_decode(&c, message.text + at, message.n - at) || !is_strip_space(c)) {
            break;
        }
        message.n = at;
    }
    return message;
}

static ChatMessage strip(ChatMessage message)
{
    return strip_back(strip_front(message));
}

static void add_message(ChatParts *parts, ChatMessage message)
{
    chat_parts_add(parts, message.text, message.n, true);
}

static const char *role_name(ChatRole role)
{
    return role == CHAT_SYSTEM ? "system" : role == CHAT_USER ? "user" : "assistant";
}

/* What follows the last end of a thought, and the line ends after it. */
static ChatMessage without_thoughts(ChatMessage answer)
{
    static const char end[] = "</think>";
    const size_t length = sizeof end - 1;
    for (size_t at = answer.n; at >= length; at--) {
        if (memcmp(answer.text + at - length, end, length) == 0) {
            while (at < answer.n && answer.text[at] == '\n') {
                at++;
            }
            return (ChatMessage){answer.role, answer.text + at, answer.n - at};
        }
    }
    return answer;
}

/* ---- templates ----------------------------------------------------------------------------- */

static void render_chatml(ChatParts *parts, const ChatTemplate *as, const ChatMessage *messages,
                          int n)
{
    if (as->system && messages[0].role != CHAT_SYSTEM) {
        literal(parts, "<|im_start|>system\n");
        literal(parts, as->system);
        literal(parts, "<|im_end|>\n");
    }
    for (int i = 0; i < n; i++) {
        literal(parts, "<|im_start|>");
        literal(parts, role_name(messages[i].role));
        literal(parts, "\n");
        bool drops = as->drops_thoughts && messages[i].role == CHAT_ASSISTANT;
        add_message(parts, drops ? without_thoughts(messages[i]) : messages[i]);
        literal(parts, "<|im_end|>\n");
    }
    literal(parts, "<|im_start|>assistant\n");
}

static void llama3_header(ChatParts *parts, ChatRole role)
{
    literal(parts, "<|start_header_id|>");
    literal(parts, role_name(role));
    literal(parts, "<|end_header_id|>\n\n");
}

static void render_llama3(ChatParts *parts, const ChatTemplate *as, const ChatMessage *messages,
                          int n)
{
    int first = messages[0].role == CHAT_SYSTEM;
    literal(parts, "<|begin_of_text|>");
    llama3_header(parts, CHAT_SYSTEM);
    literal(parts, as->system);
    if (first) {
        add_message(parts, strip(messages[0]));
    }
    literal(parts, "<|eot_id|>");
    for (int i = first; i < n; i++) {
        llama3_header(parts, messages[i].role);
        add_message(parts, strip(messages[i]));
        literal(parts, "<|eot_id|>");
    }
    llama3_header(parts, CHAT_ASSISTANT);
}

static void render_llama2(ChatParts *parts, const ChatTemplate *as, const ChatMessage *messages,
                          int n)
{
    int first = messages[0].role == CHAT_SYSTEM;
    (void)as;
    for (int i = first; i < n; i++) {
        if (messages[i].role == CHAT_ASSISTANT) {
            literal(parts, " ");
            add_message(parts, strip(messages[i]));
            literal(parts, " </s>");
            continue;
        }
        literal(parts, "<s>[INST] ");
        if (first && i == first) { /* the turn is stripped with the system's text in it */
            ChatMessage question = strip_back(messages[i]);
            literal(parts, "<<SYS>>\n");
            add_message(parts, messages[0]);
            literal(parts, question.n ? "\n<</SYS>>\n\n" : "\n<</SYS>>");
            add_message(parts, question);
        } else {
            add_message(parts, strip(messages[i]));
        }
        literal(parts, " [/INST]");
    }
}

static const ChatTemplate templates[] = {
    {.name = "chatml", .turn_end = "<|im_end|>", .before_answer = "", .render = render_chatml},
    {.name = "qwen2.5",
     .system = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
     .turn_end = "<|im_end|>",
     .before_answer = "",
     .sha256 = {"cd8e9439f0570856fd70470bf8889ebd8b5d1107207f67a5efb46e342330527f"},
     .render = render_chatml},
    {.name = "qwen3",
     .turn_end = "<|im_end|>",
     .before_answer = "",
     .drops_thoughts = true,
     .sha256 = {"a55ee1b1660128b7098723e0abcd92caa0788061051c62d51cbe87d9cf1974d8",
                "87a2728cb8dc9fe424d624542f6060ec05a1d285ebbec578bb078900e33396b5"},
     .render = render_chatml},
    {.name = "smollm2",
     .system = "You are a helpful AI assistant named SmolLM, trained by Hugging Face",
     .turn_end = "<|im_end|>",
     .before_answer = "",
     .sha256 = {"872be49dbb638044ad01b60388f48d469ff2980e5f0dccdc22ec907db54d0788"},
     .render = render_chatml},
    {.name = "llama3",
     .system = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n",
     .turn_end = "<|eot_id|>",
     .before_answer = "",
     .sha256 = {"5816fce10444e03c2e9ee1ef8a4a1ea61ae7e69e438613f3b17b69d0426223a4",
                "e10ca381b1ccc5cf9db52e371f3b6651576caee0a630b452e2816b2d404d4b65"},
     .render = render_llama3},
    {.name = "llama2",
     .turn_end = "</s>",
     .before_answer = " ",
     .sha256 = {"e8d5b5a546d3f19df16a5320c614fab05bdc4edd50e850f1afd947b503ea41cf"},
     .render = render_llama2},
};

const ChatTemplate *chat_template_find(const char *name)
{
    for (size_t i = 0; i < sizeof templates / sizeof *templates; i++) {
        if (strcmp(templates[i].name, name) == 0) {
            return &templates[i];
        }
    }
    return NULL;
}

const char *chat_template_names(void)
{
    return "chatml, qwen2.5, qwen3, smollm2, llama3, llama2";
}

void chat_render(ChatParts *parts, const ChatTemplate *as, const ChatMessage *messages, int n)
{
    as->render(parts, as, messages, n);
}

/* ---- a model's own ------------------------------------------------------------------------- */

static void recognise(ModelChat *chat, const char *text, size_t n)
{
    sha256_bytes(chat->sha256, text, n);
    for (size_t i = 0; i < sizeof templates / sizeof *templates; i++) {
        for (int j = 0; j < 2; j++) {
            const char *known = templates[i].sha256[j];
            if (known && strcmp(known, chat->sha256) == 0) {
                chat->known = &templates[i];
            }
        }
    }
}

/* "chat_template": a text, or a list of {"name", "template"}. */
static void recognise_member(ModelChat *chat, const Json *member)
{
    const Json *text = member;
    for (size_t i = 0; json_kind(member) == JSON_ARRAY && i < json_size(member); i++) {
        const char *name = json_string(json_get(json_at(member, i), "name"), NULL);
        if (name && strcmp(name, "default") == 0) {
            text = json_get(json_at(member, i), "template");
        }
    }
    size_t n;
    const char *string = json_string(text, &n);
    if (string) {
        recognise(chat, string, n);
    }
}

static Status recognise_gguf(ModelChat *chat, const char *path, Error *error)
{
    Gguf *gguf;
    GgufString text;
    Status status = gguf_open(&gguf, path, error);
    if (!status) {
        if (gguf_string(gguf_find(gguf, "tokenizer.chat_template"), &text)) {
            recognise(chat, text.bytes, text.n);
        }
        gguf_close(gguf);
    }
    return status;
}

Status chat_of_model(ModelChat *chat, const char *path, Error *error)
{
    char file[FILE_PATH_MAX];
    *chat = (ModelChat){0};
    if (gguf_is(path)) {
        return recognise_gguf(chat, path, error);
    }
    if (!directory_exists(path)) {
        return STATUS_OK;
    }
    Status status = path_join(file, path, "chat_template.jinja", error);
    if (!status && file_exists(file)) {
        char *text;
        size_t n;
        status = file_read(&text, &n, file, MAX_TEMPLATE_BYTES, error);
        if (!status) {
            recognise(chat, text, n);
            free(text);
        }
        return status;
    }
    status = status ? status : path_join(file, path, "tokenizer_config.json", error);
    if (!status && file_exists(file)) {
        JsonDocument *document;
        status = json_read(&document, file, MAX_CONFIG_BYTES, error);
        if (!status) {
            recognise_member(chat, json_get(json_root(document), "chat_template"));
            json_free(document);
        }
    }
    return status;
}

void chat_warn(Text *out, const ModelChat *own, const char *used)
{
    const ChatTemplate *chat = chat_template_find(used);
    if (!chat || !own->sha256[0] || own->known == chat) {
        return;
    }
    if (own->known) {
        text_printf(out, "template \"%s\": the model's own chat template is \"%s\"", chat->name,
                    own->known->name);
    } else {
        text_printf(
            out,
            "template \"%s\": the model's own chat template (sha256 %.12s..) is not a known "
            "one and may differ",
            chat->name, own->sha256);
    }
}
