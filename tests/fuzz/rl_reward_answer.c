/* Any bytes as a line of a reward command: no answer, with a reason; an error that it tells; or a
 * finite reward. */
#include <math.h>
#include <stdlib.h>

#include "rl/reward_answer.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    double value = NAN;
    Text trouble = {0};
    const char *wrong = reward_answer_read(&value, &trouble, (const char *)bytes, n, 7);
    if (isinf(value) || (wrong && (trouble.n || !isnan(value))) ||
        (!wrong && (trouble.n == 0) != !isnan(value))) {
        abort();
    }
    text_release(&trouble);
    return 0;
}
