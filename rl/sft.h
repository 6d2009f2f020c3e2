/* Supervised fine-tuning: next-token cross-entropy on the answer and the end of sequence, prompt
 * masked unless settings say otherwise; mean over the supervised tokens of the step's rows. With
 * label smoothing e a token's loss is -(1 - e) log p(token) - e mean_v log p(v) (Szegedy et al.
 * 2016). Batches are ragged: there is no padding and nothing to pack, and no row sees another.
 * Called through learner_step. */
#pragma once
#include "rl/learner.h"

Status sft_step(const Trainer *trainer, Learner **learners, int n, StepResult *results,
                Error *error);
