/* Speed of tokenizer_encode, one thread: bench_tokenizer TOKENIZER REPEATS FILE... The questions
 * and answers of the files' rows, a text each, then all of a file as one text; every token is made
 * anew in each pass. Prints what, megabytes, tokens, best and median MB/s. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core/file.h"
#include "core/json.h"
#include "core/tokenizer.h"

typedef struct {
    char **texts;
    size_t *lengths, n, n_bytes;
} Texts;

static void die(const Error *error)
{
    fprintf(stderr, "bench_tokenizer: %s\n", error->message);
    exit(1);
}

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void add(Texts *texts, const char *text, size_t n)
{
    texts->texts = realloc(texts->texts, (texts->n + 1) * sizeof *texts->texts);
    texts->lengths = realloc(texts->lengths, (texts->n + 1) * sizeof *texts->lengths);
    char *copy = malloc(n + 1);
    if (!texts->texts || !texts->lengths || !copy) {
        abort();
    }
    memcpy(copy, text, n);
    copy[n] = 0;
    texts->texts[texts->n] = copy;
    texts->lengths[texts->n++] = n;
    texts->n_bytes += n;
}

static void add_rows(Texts *rows, const char *bytes, size_t n)
{
    static const char *const keys[] = {"question", "answer"};
    for (const char *line = bytes, *end; line < bytes + n; line = end + 1) {
        Error error;
        JsonDocument *document;
        end = memchr(line, '\n', (size_t)(bytes + n - line));
        end = end ? end : bytes + n;
        if (end > line && json_parse(&document, line, (size_t)(end - line), &error)) {
            die(&error);
        }
        for (int i = 0; i < 2 && end > line; i++) {
            size_t length;
            const char *text = json_string(json_get(json_root(document), keys[i]), &length);
            if (text) {
                add(rows, text, length);
            }
        }
        if (end > line) {
            json_free(document);
        }
    }
}

static int compare(const void *a, const void *b)
{
    return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}

static void measure(const char *what, const Tokenizer *tokenizer, const Texts *texts, int repeats)
{
    double *seconds = malloc((size_t)repeats * sizeof *seconds);
    size_t n_tokens = 0;
    TokenList ids = {0};
    Error error;
    for (int r = 0; seconds && r < repeats; r++) {
        double start = now_s();
        n_tokens = 0;
        for (size_t i = 0; i < texts->n; i++) {
            ids.n = 0;
            if (tokenizer_encode(tokenizer, texts->texts[i], texts->lengths[i],
                                 TOKENIZER_ADD_SPECIAL, &ids, &error)) {
                die(&error);
            }
            n_tokens += ids.n;
        }
        seconds[r] = now_s() - start;
    }
    qsort(seconds, (size_t)repeats, sizeof *seconds, compare);
    double mb = 1e-6 * (double)texts->n_bytes;
    printf("%-6s %6.2f MB %8zu texts %8zu tokens %8.1f %8.1f MB/s\n", what, mb, texts->n, n_tokens,
           mb / seconds[0], mb / seconds[repeats / 2]);
    free(seconds);
    token_list_release(&ids);
}

/* Encoding and decoding a million of one thing: the longest of all seven. */
static void measure_million(const Tokenizer *tokenizer)
{
    static const char *const atoms[] = {" ", "a", "\n", "^", "0", "\xcc\x81", "\xf0\x9f\x9a\x80"};
    double longest = 0;
    for (size_t i = 0; i < sizeof atoms / sizeof *atoms; i++) {
        Text text = {0}, back = {0};
        TokenList ids = {0};
        Error error;
        for (int n = 0; n < 1000000; n++) {
            text_add(&text, atoms[i]);
        }
        double start = now_s();
        if (tokenizer_encode(tokenizer, text.bytes, text.n, 0, &ids, &error)) {
            die(&error);
        }
        tokenizer_decode(tokenizer, ids.ids, ids.n, false, &back);
        double seconds = now_s() - start;
        longest = seconds > longest ? seconds : longest;
        if (back.n != text.n) {
            fprintf(stderr, "bench_tokenizer: a million does not come back\n");
            exit(1);
        }
        text_release(&text);
        text_release(&back);
        token_list_release(&ids);
    }
    printf("10^6   %.3f s there and back, the longest of 7\n", longest);
}

int main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: bench_tokenizer TOKENIZER REPEATS FILE...\n");
        return 2;
    }
    Error error;
    Tokenizer *tokenizer;
    Texts rows = {0}, wholes = {0};
    double start = now_s();
    if (tokenizer_open(&tokenizer, argv[1], &error)) {
        die(&error);
    }
    printf("open   %.3f s\n", now_s() - start);
    for (int i = 3; i < argc; i++) {
        char *bytes;
        size_t n;
        if (file_read(&bytes, &n, argv[i], (size_t)1 << 30, &error)) {
            die(&error);
        }
        add_rows(&rows, bytes, n);
        add(&wholes, bytes, n);
        free(bytes);
    }
    measure("rows", tokenizer, &rows, atoi(argv[2]));
    measure("files", tokenizer, &wholes, atoi(argv[2]));
    measure_million(tokenizer);
    tokenizer_free(tokenizer);
    return 0;
}
