/* Dynamic loss scaling (Micikevicius et al. 2018, section 3.2; the rule of PyTorch's GradScaler):
 * gradients that wait in f16 are those of scale x the objective, so that small ones are not lost;
 * where they leave its range the update is skipped and the scale halved. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#define LOSS_SCALE_FIRST 65536
#define LOSS_SCALE_WINDOW 2000
#define LOSS_SCALE_LEAST 1

typedef struct {
    double scale; /* 1 where nothing is scaled */
    int64_t good; /* updates since it changed */
} LossScale;

/* After an update that was made: the scale doubles after `window` of them. */
void loss_scale_grow(LossScale *loss_scale, int64_t window);
/* After one that was skipped. False where the scale was so small that scaling is not the reason; it
 * is left as it is. */
bool loss_scale_fall(LossScale *loss_scale);
