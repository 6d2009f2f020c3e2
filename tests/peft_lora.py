#!/usr/bin/env python3
"""Loss and gradients of one LoRA step by PEFT over transformers, in double precision: what
tests/test_adapters_peft.c compares the engine with.

usage: python3 tests/peft_lora.py > tests/data/peft_lora.json     (PEFT, transformers, PyTorch)

Weights, A, B and tokens come from a formula of integers that the test has too, so that nothing but
numbers to compare is stored: number e of array k is ((k * 1000003 + e * 2654435761) mod 2^32) /
2^32 - 0.5, times the array's size, rounded to f32.
"""
import json

import numpy
import peft
import torch
import transformers

SHAPE = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
             intermediate_size=24, vocab_size=19, max_position_embeddings=64, rope_theta=10000.0,
             rms_norm_eps=1e-5, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2)
MODULES = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
           "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
LAYER = [f"{m}.{kind}" for m in MODULES for kind in ("weight", "bias")]
LAYER += ["input_layernorm.weight", "post_attention_layernorm.weight"]
N_TOKENS, N_PROMPT = 11, 4


def numbers(k, shape, size):
    e = numpy.arange(int(numpy.prod(shape)), dtype=numpy.uint64)
    h = (k * 1000003 + e * 2654435761) % 2**32
    return ((h / 2.0**32 - 0.5) * size).astype(numpy.float32).reshape(shape)


def set_weights(model):
    """Array 100 + 16 layer + place in LAYER; 1 the embedding, 2 the last norm."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name == "model.embed_tokens.weight":
                values = numbers(1, p.shape, 2)
            elif name == "model.norm.weight":
                values = 1 + numbers(2, p.shape, 0.5)
            else:
                layer, rest = name.removeprefix("model.layers.").split(".", 1)
                k = 100 + 16 * int(layer) + LAYER.index(rest)
                norm = rest.endswith("norm.weight")
                values = numbers(k, p.shape, 0.5 if norm else 1) + (1 if norm else 0)
            p.copy_(torch.from_numpy(values.astype(numpy.float32)).double())


def run(kind, targets, rank, alpha, rslora):
    config_class = transformers.LlamaConfig if kind == "llama" else transformers.Qwen2Config
    config = config_class(**SHAPE, attn_implementation="eager")
    model = transformers.AutoModelForCausalLM.from_config(config).double()
    set_weights(model)
    lora = peft.LoraConfig(r=rank, lora_alpha=alpha, use_rslora=rslora, lora_dropout=0.0,
                           target_modules=targets, task_type="CAUSAL_LM")
    model = peft.get_peft_model(model, lora).double()
    parameters = [p for p in model.named_parameters() if p[1].requires_grad]
    with torch.no_grad():
        for k, (name, p) in enumerate(parameters):
            p.copy_(torch.from_numpy(numbers(1000 + k, p.shape, 1)).double())
    tokens = torch.tensor([[(5 + 7 * t * t + 3 * t) % 19 for t in range(N_TOKENS)]])
    labels = tokens.clone()
    labels[:, :N_PROMPT] = -100
    loss = model(input_ids=tokens, labels=labels).loss
    loss.backward()
    return {"model": kind, "targets": targets, "rank": rank, "alpha": alpha, "rslora": rslora,
            "loss": float(loss.detach()),
            "names": [n.removeprefix("base_model.model.").replace(".default", "") for n, _ in parameters],
            "gradient": [float(f"{g:.9g}") for _, p in parameters for g in p.grad.flatten().tolist()]}


ALL = [m.split(".")[1] for m in MODULES]
print(json.dumps({
    "peft": peft.__version__, "transformers": transformers.__version__, "torch": torch.__version__,
    "cases": [run("llama", ["q_proj", "v_proj"], 3, 6, False), run("qwen2", ALL, 2, 3, True)]}))
