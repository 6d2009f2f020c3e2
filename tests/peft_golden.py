"""Golden figures of real PEFT over transformers (made with peft 0.21.2, transformers 5.23.0, torch 2.15.0; the same
bits with transformers 5.24.0).

  peft_golden.py make MODEL OUT              adapters as PEFT saves them, and PEFT's log-probabilities: OUT/golden.json
  peft_golden.py check MODEL IDS DIR=SCORES  an adapter that we exported, in PEFT, against `tinylora score -o json`:
                                             prints the largest difference; IDS: `tinylora tokenize -o json`

No test needs Python: test_cli_adapter.c reads what `make` left in tests/data/peft (MODEL: stories260k).
"""
import json
import pathlib
import sys

import torch
from peft import LoraConfig, PeftModel, TinyLoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

TEXT = "Once upon a time there was a little dog."
IDS = [1, 403, 407, 261, 378, 383, 286, 261, 376, 400, 428, 426]  # of TEXT in stories260k


def base(model):
    return AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)


@torch.no_grad()
def logprobs(model, ids):
    rows = torch.log_softmax(model.eval()(torch.tensor([ids])).logits[0].double(), -1)
    return [rows[t, ids[t + 1]].item() for t in range(len(ids) - 1)]


def make(model, out):
    torch.manual_seed(0)
    golden = {"text": TEXT, "ids": IDS, "logprobs": {}}
    configs = {
        "lora": LoraConfig(r=2, lora_alpha=8, use_rslora=True, target_modules=["q_proj", "v_proj"],
                           layers_to_transform=[1, 3]),
        "rank": LoraConfig(r=1, lora_alpha=4, target_modules=["k_proj", "o_proj"], rank_pattern={"o_proj": 3},
                           layers_to_transform=[2]),
        "tinylora": TinyLoraConfig(r=2, u=3, weight_tying=0.6, target_modules=["q_proj", "v_proj"],
                                   init_weights="uniform", init_v_bound=0.3),
        "dora": LoraConfig(r=1, use_dora=True, target_modules=["k_proj"], layers_to_transform=[0]),
    }
    for name, config in configs.items():
        config.task_type = "CAUSAL_LM"
        tuned = get_peft_model(base(model), config)
        for key, value in tuned.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(value, std=0.1)
        tuned.peft_config["default"].base_model_name_or_path = "stories260k"
        tuned.save_pretrained(out / name)
        (out / name / "README.md").unlink(missing_ok=True)
        golden["logprobs"][name] = logprobs(tuned, IDS)
    (out / "golden.json").write_text(json.dumps(golden, indent=1) + "\n")


def check(model, ids_path, pairs):
    ids = [json.loads(line)["ids"] for line in pathlib.Path(ids_path).read_text().splitlines()]
    for pair in pairs:
        adapter, scores = pair.split("=")
        ours = [json.loads(line)["logprobs"] for line in pathlib.Path(scores).read_text().splitlines()]
        tuned = PeftModel.from_pretrained(base(model), adapter)
        worst = max(abs(a - b) for i, row in zip(ids, ours) for a, b in zip(logprobs(tuned, i), row))
        print(adapter, worst)


if __name__ == "__main__":
    if sys.argv[1] == "make":
        make(sys.argv[2], pathlib.Path(sys.argv[3]))
    else:
        check(sys.argv[2], sys.argv[3], sys.argv[4:])
