#!/usr/bin/env python3
"""Log-probabilities of small random models of every family by transformers, in f32: what
tests/test_core_architectures.c compares the engine with.

usage: python3 tests/architectures_golden.py > tests/data/architectures.json   (transformers, PyTorch)

The configs carry the keys that real ones of their families carry. Weights and tokens come from a
formula of integers that the test has too, so that nothing but numbers to compare is stored: see
numbers() and set_weights(). Texts are longer than every window and than the positions that scaled
models were "trained" on.
"""
import json
import pathlib
import tempfile

import numpy
import torch
import transformers

N_TOKENS, VOCABULARY = 120, 41

SIZES = dict(hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, vocab_size=VOCABULARY, max_position_embeddings=256,
             hidden_act="silu", initializer_range=0.02, use_cache=True, attention_dropout=0.0,
             bos_token_id=1, eos_token_id=2)
LLAMA = dict(architectures=["LlamaForCausalLM"], model_type="llama", pretraining_tp=1)
QWEN2 = dict(architectures=["Qwen2ForCausalLM"], model_type="qwen2", rms_norm_eps=1e-6)
QWEN3 = dict(architectures=["Qwen3ForCausalLM"], model_type="qwen3", rms_norm_eps=1e-6, head_dim=10)
MISTRAL = dict(architectures=["MistralForCausalLM"], model_type="mistral", rms_norm_eps=1e-5)
LLAMA3 = dict(rope_type="llama3", low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=32)

CASES = {
    "llama 2": dict(LLAMA, num_key_value_heads=4, rms_norm_eps=1e-5, rope_scaling=None,
                    tie_word_embeddings=False, torch_dtype="float16"),
    "tinyllama": dict(LLAMA, num_key_value_heads=1, rms_norm_eps=1e-5, rope_theta=10000.0,
                      rope_scaling=None, attention_bias=False, tie_word_embeddings=False,
                      torch_dtype="bfloat16"),
    "llama 3": dict(LLAMA, rms_norm_eps=1e-5, rope_theta=500000.0, rope_scaling=None,
                    tie_word_embeddings=False, eos_token_id=[2, 3]),
    "llama 3.1": dict(LLAMA, rms_norm_eps=1e-5, rope_theta=500000.0, mlp_bias=False,
                      rope_scaling=dict(LLAMA3, factor=8.0), tie_word_embeddings=False),
    "llama 3.2": dict(LLAMA, rms_norm_eps=1e-5, rope_theta=500000.0, head_dim=8,
                      rope_scaling=dict(LLAMA3, factor=32.0), tie_word_embeddings=True),
    "llama, biases, linear": dict(LLAMA, attention_bias=True, mlp_bias=True, head_dim=None,
                                  rope_scaling={"type": "linear", "factor": 4.0},
                                  tie_word_embeddings=True),
    "smollm2": dict(LLAMA, num_attention_heads=3, num_key_value_heads=1, is_llama_config=True,
                    rope_interleaved=False, rope_theta=100000, rms_norm_eps=1e-5, mlp_bias=False,
                    attention_bias=False, tie_word_embeddings=True, pad_token_id=2,
                    **{"transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}}}),
    "qwen2.5": dict(QWEN2, rope_theta=1000000.0, rope_scaling=None, sliding_window=None,
                    use_sliding_window=False, max_window_layers=21, tie_word_embeddings=True,
                    torch_dtype="bfloat16"),
    "qwen2, window": dict(QWEN2, rope_theta=10000.0, sliding_window=20, use_sliding_window=True,
                          max_window_layers=1, tie_word_embeddings=False),
    "qwen2.5, yarn": dict(QWEN2, rope_theta=10000.0, use_sliding_window=False, sliding_window=131072,
                          max_window_layers=2, tie_word_embeddings=True,
                          rope_scaling={"type": "yarn", "factor": 4.0, "beta_fast": 8.0,
                                        "original_max_position_embeddings": 64}),
    "qwen3": dict(QWEN3, rope_theta=1000000, rope_scaling=None, sliding_window=None,
                  use_sliding_window=False, max_window_layers=2, attention_bias=False,
                  tie_word_embeddings=True, torch_dtype="bfloat16"),
    "qwen3, transformers 5": dict(QWEN3, attention_bias=True, dtype="float32", sliding_window=17,
                                  use_sliding_window=True, max_window_layers=2,
                                  layer_types=["full_attention", "sliding_attention"],
                                  rope_parameters={"rope_type": "yarn", "rope_theta": 20000.0,
                                                   "factor": 4.0, "attention_factor": 1.3,
                                                   "original_max_position_embeddings": 64},
                                  tie_word_embeddings=False),
    "mistral 0.1": dict(MISTRAL, sliding_window=24, rope_theta=10000.0, tie_word_embeddings=False),
    "mistral 0.3": dict(MISTRAL, sliding_window=None, rope_theta=1000000.0, head_dim=12,
                        tie_word_embeddings=False),
}


def numbers(name, n, size):
    """size * (h / 2^32 - 1/2), h a mix of the name's FNV-1a and the place (MurmurHash3's last steps)."""
    k = 2166136261
    for byte in name.encode():
        k = (k ^ byte) * 16777619 % 2**32
    x = (numpy.arange(n, dtype=numpy.uint64) * 0x9E3779B9 + k) % 2**32
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = (x ^ (x >> numpy.uint64(shift))) * numpy.uint64(factor) % 2**32
    x = x ^ (x >> numpy.uint64(16))
    return (x / 2.0**32 - 0.5) * size


def set_weights(model):
    """Matrices of deviation 1 / sqrt(columns), the embedding 1, biases of 1/4, norms 1 +- 1/2."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("norm.weight"):
                values = 1 + numbers(name, p.numel(), 1)
            elif name.endswith(".bias"):
                values = numbers(name, p.numel(), 0.9)
            else:
                columns = 1 if "embed" in name else p.shape[1]
                values = numbers(name, p.numel(), 3.5 / columns**0.5)
            p.copy_(torch.from_numpy(values.astype(numpy.float32)).reshape(p.shape))


@torch.no_grad()
def run(name, changes):
    config = {**SIZES, **changes}
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / "config.json").write_text(json.dumps(config))
        read = transformers.AutoConfig.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_config(read, attn_implementation="eager").float().eval()
    set_weights(model)
    ids = torch.tensor([[(t * t * 7 + t * 3 + 5) % VOCABULARY for t in range(N_TOKENS)]])
    rows = torch.log_softmax(model(ids).logits[0].double(), -1)
    return {"name": name, "config": config, "parameters": sum(p.numel() for p in model.parameters()),
            "logprobs": [round(rows[t, ids[0, t + 1]].item(), 6) for t in range(N_TOKENS - 1)],
            "last": [round(x, 6) for x in rows[-1].tolist()]}


print(json.dumps({"transformers": transformers.__version__, "torch": torch.__version__,
                  "cases": [run(*case) for case in CASES.items()]}).replace('}, {"name"', '},\n{"name"'))
