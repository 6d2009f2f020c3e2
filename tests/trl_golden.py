"""Golden figures of TRL's own GRPO loss (made with trl 1.16.0, torch 2.15.0; CPU).

  trl_golden.py OUT      GRPOTrainer._compute_loss on made-up log-probabilities: its value, its gradients by the
                         log-probabilities and the entropies, its metrics, for every loss of the menu that it has, and
                         its soft overlong punishment: OUT/golden.json

No test needs Python: test_rl_objective.c reads what was left in tests/data/trl.
"""
import collections
import json
import pathlib
import sys
import types

import torch
from trl.rewards import get_soft_overlong_punishment
from trl.trainer.grpo_trainer import GRPOTrainer

LENGTHS = [7, 3, 9, 5, 1, 9, 4, 6]  # of 2 groups of 4; 9 is the limit: those two did not end
LIMIT = 9
ADVANTAGES = [0.9, -1.3, 0.4, -0.7, 0.0, 0.0, 0.0, 0.0]  # the second group has no spread


class Accelerator:
    num_processes = 1
    sync_gradients = False

    @staticmethod
    def reduce(x, reduction):
        return x

    @staticmethod
    def gather(x):
        return x


def data(seed):
    generator = torch.Generator().manual_seed(seed)

    def normal(scale):
        return scale * torch.randn(len(LENGTHS), LIMIT, generator=generator, dtype=torch.float64)

    logprobs = -3 * torch.rand(len(LENGTHS), LIMIT, generator=generator, dtype=torch.float64)
    drift = torch.tensor([0.4, 0.5, 0.05, -0.5, 0.2, -0.3, 0.0, 0.1], dtype=torch.float64)
    old = logprobs - drift.unsqueeze(1) + normal(0.3)
    return {"logprobs": logprobs, "old": old, "base": logprobs + normal(1.0), "sampler": old + normal(0.2),
            "entropies": 2 * torch.rand(len(LENGTHS), LIMIT, generator=generator, dtype=torch.float64)}


def corrections(case, x, mask):
    gap = (x["old"] - x["sampler"]) * mask
    gap = gap.sum(-1, keepdim=True) if case["correction"].startswith("sequence") else gap
    ratio = torch.exp(gap)
    if case["correction"].endswith("truncate"):
        return ratio.clamp(case["clip_min"], case["clip_max"])
    return ratio.masked_fill((ratio < case["clip_min"]) | (ratio > case["clip_max"]), 0.0)


def run(case, x):
    mask = torch.zeros(len(LENGTHS), LIMIT, dtype=torch.float64)
    for i, n in enumerate(LENGTHS):
        mask[i, :n] = 0 if case["mask_truncated"] and n == LIMIT else 1
    logprobs, entropies = (x[key].clone().requires_grad_() for key in ("logprobs", "entropies"))
    model = types.SimpleNamespace(training=False)
    trainer = types.SimpleNamespace(
        model=model,
        args=types.SimpleNamespace(use_bias_correction_kl=False, delta=case["delta"] or None, steps_per_generation=1),
        _get_per_token_logps_and_entropies=lambda *a, **k: (logprobs, entropies, None), aux_loss_enabled=False,
        top_entropy_quantile=1.0, off_policy_mask_threshold=None, importance_sampling_level=case["level"],
        beta=case["kl_beta"], loss_type=case["loss"], epsilon_low=case["clip_low"],
        epsilon_high=case["clip_high"] + (1 if case["loss"] == "cispo" else 0), use_vllm=case["correction"] != "none",
        vllm_importance_sampling_correction=True, accelerator=Accelerator(), max_completion_length=LIMIT,
        _entropy_bonus_enabled=case["entropy_coef"] != 0, use_adaptive_entropy=False,
        entropy_coef=case["entropy_coef"], current_gradient_accumulation_steps=1,
        _metrics={"eval": collections.defaultdict(list)})
    inputs = {"prompt_ids": torch.zeros(len(LENGTHS), 1), "prompt_mask": torch.ones(len(LENGTHS), 1),
              "completion_ids": torch.zeros(len(LENGTHS), LIMIT), "completion_mask": mask,
              "advantages": torch.tensor(ADVANTAGES, dtype=torch.float64), "old_per_token_logps": x["old"],
              "ref_per_token_logps": x["base"], "num_items_in_batch": mask.sum()}
    if case["correction"] != "none":
        inputs["importance_sampling_ratio"] = corrections(case, x, mask)
    loss = GRPOTrainer._compute_loss(trainer, model, inputs)
    loss.backward()
    cut = lambda rows: [[float(f"{x:.12g}") for x in row[:n]] for row, n in zip(rows.tolist(), LENGTHS)]
    gradient = entropies.grad if entropies.grad is not None else torch.zeros_like(entropies)
    metrics = {key: value[0] for key, value in trainer._metrics["eval"].items()}
    return case | {"value": loss.item(), "dlogprobs": cut(logprobs.grad), "dentropies": cut(gradient),
                   "metrics": metrics}


def cases():
    plain = {"loss": "grpo", "level": "token", "clip_low": 0.2, "clip_high": 0.28, "delta": 0, "kl_beta": 0,
             "entropy_coef": 0, "mask_truncated": False, "correction": "none", "clip_min": 0.9, "clip_max": 1.2}
    for loss in ("grpo", "bnpo", "dr_grpo", "dapo", "cispo"):
        for level in ("token", "sequence"):
            for masked in (False, True):
                yield plain | {"loss": loss, "level": level, "mask_truncated": masked}
            yield plain | {"loss": loss, "level": level, "kl_beta": 0.04, "entropy_coef": 0.01, "mask_truncated": True}
            for how in ("token_truncate", "token_mask", "sequence_truncate", "sequence_mask"):
                yield plain | {"loss": loss, "level": level, "kl_beta": 0.1, "correction": how}
    for level in ("token", "sequence"):
        yield plain | {"loss": "dapo", "level": level, "delta": 1.3, "mask_truncated": True}
    yield plain | {"level": "sequence", "clip_low": 3e-4, "clip_high": 4e-4}  # GSPO's recipe


def main(out):
    x = data(20261128)
    overlong = get_soft_overlong_punishment(LIMIT, 4)
    golden = {"limit": LIMIT, "lengths": LENGTHS, "advantages": ADVANTAGES,
              "overlong": overlong(completion_ids=[[0] * n for n in LENGTHS])}
    golden |= {key: [row[:n].tolist() for row, n in zip(rows, LENGTHS)] for key, rows in x.items()}
    golden["cases"] = [run(case, x) for case in cases()]
    (out / "golden.json").write_text(json.dumps(golden) + "\n")
    print(len(golden["cases"]), "cases")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
