/* {"reward": 0.5} or {"error": "why"}; an "id", where it is given back, is the row's. */
#include "rl/reward_answer.h"

#include "core/json.h"

const char *reward_answer_read(double *value, Text *trouble, const char *line, size_t n,
                               uint64_t id)
{
    JsonDocument *document = NULL;
    if (json_parse(&document, line, n, NULL)) {
        return "it wrote a line that is not JSON";
    }
    const Json *root = json_root(document), *given = json_get(root, "id");
    const Json *reward = json_get(root, "reward");
    int64_t number = 0;
    double finite = 0;
    size_t length = 0;
    const char *said = json_string(json_get(root, "error"), &length), *wrong = NULL;
    if (given && (!json_int64(given, &number) || (uint64_t)number != id)) {
        wrong = "it answered another row than the one asked";
    } else if (said) {
        text_append(trouble, said, length);
        text_add(trouble, length ? "" : "an error without a word");
    } else if (json_kind(reward) == JSON_NUMBER && json_double(reward, &finite)) {
        *value = finite;
    } else {
        wrong = "it wrote a line with neither a finite \"reward\" nor an \"error\"";
    }
    json_free(document);
    return wrong;
}
