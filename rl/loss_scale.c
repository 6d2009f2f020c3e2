/* Two numbers, which a checkpoint keeps. */
#include "rl/loss_scale.h"

void loss_scale_grow(LossScale *loss_scale, int64_t window)
{
    loss_scale->good++;
    if (loss_scale->good >= window) {
        *loss_scale = (LossScale){.scale = 2 * loss_scale->scale};
    }
}

bool loss_scale_fall(LossScale *loss_scale)
{
    bool falls = loss_scale->scale / 2 >= LOSS_SCALE_LEAST;
    if (falls) {
        *loss_scale = (LossScale){.scale = loss_scale->scale / 2};
    }
    return falls;
}
