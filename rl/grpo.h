/* Group relative policy optimisation (Shao et al. 2024) and its kin: sample groups, reward,
 * relative advantages, a loss of the ratios, KL to the base. On-policy exactly: the sampler's
 * log-probabilities are the trainer's (unless settings ask for another sampler). Called through
 * learner_step. Invariants:
 * 1. one generate() for all learners' rollouts of a round, one engine pass over all learners'
 * sequences per update;
 * 2. a sum over tokens is a sum over sequences of sums over their tokens, in order, in double;
 * 3. nothing of a learner changes before everything of its step is known to be finite. */
#pragma once
#include "rl/learner.h"

Status grpo_step(const Trainer *trainer, Learner **learners, int n, StepResult *results,
                 Error *error);
