/* Any bytes as JSON: refused, or a tree in which every member is found under its key. */
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "tests/fuzz/fuzz.h"

static void walk(const Json *value)
{
    int64_t integer;
    double number;
    size_t n;
    json_int64(value, &integer);
    json_double(value, &number);
    const char *string = json_string(value, &n);
    if (string && strlen(string) > n) {
        abort();
    }
    for (size_t i = 0; i < json_size(value); i++) {
        if (json_kind(value) == JSON_OBJECT &&
            json_get(value, json_key(value, i)) != json_at(value, i)) {
            abort();
        }
        walk(json_at(value, i));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    JsonDocument *document;
    Status status = json_parse(&document, (const char *)bytes, n, NULL);
    if (status == STATUS_OK) {
        walk(json_root(document));
        json_free(document);
    } else if (status != STATUS_REFUSED) {
        abort();
    }
    return 0;
}
