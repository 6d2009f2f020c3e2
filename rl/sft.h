/* Supervised fine-tuning: next-token cross-entropy on the answer and the end of sequence, prompt
 * masked; mean over the supervised tokens of the step's rows. Called through learner_step. */
#pragma once
#include "rl/learner.h"

Status sft_step(const Trainer *trainer, Learner **learners, int n, StepResult *results,
                Error *error);
