/* Lines as a GGUF file (gguf_lines.h): refused, or a config whose tensors can be listed, tensors
 * under other names, and a model that can be verified. */
#include "core/gguf_model.h"

#include "core/verify.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/gguf_lines.h"
#include "tests/fuzz/memory.h"
#include "tests/fuzz/model_config.h"

static void use(const Gguf *gguf, const Text *file, bool always)
{
    char path[64], (*names)[128];
    ModelConfig config;
    Tensor *tensors;
    size_t n;
    Status status = gguf_model_config(&config, gguf, NULL);
    if (status == STATUS_OK) {
        check_config(&config);
    } else if (status != STATUS_REFUSED) {
        abort();
    }
    if (gguf_model_tensors(&tensors, &names, &n, gguf, NULL) == STATUS_OK) {
        if (n > gguf_n_tensors(gguf)) {
            abort();
        }
        for (size_t i = 0; i < n; i++) {
            if (memchr(names[i], 0, sizeof *names) == NULL || tensors[i].name != names[i]) {
                abort();
            }
        }
        free(tensors);
        free(names);
    }
    if (status == STATUS_OK || always) {
        memory_file(path, file->bytes, file->n);
        if (verify_path(path, VERIFY_GGUF, NULL, NULL) == STATUS_OK && status) {
            abort();
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    Text file = {0};
    Gguf *gguf;
    gguf_of_lines(&file, bytes, n);
    Status status = gguf_parse(&gguf, file.bytes, file.n, NULL);
    if (status == STATUS_OK) {
        use(gguf, &file, n % 8 == 0); /* verifying takes long */
        gguf_close(gguf);
    } else if (status != STATUS_REFUSED) {
        abort();
    }
    text_release(&file);
    return 0;
}
