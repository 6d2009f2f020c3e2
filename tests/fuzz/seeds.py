#!/usr/bin/env python3
"""Writes the seed corpora, tests/fuzz/corpus/TARGET/NAME: small inputs that each target reads to the
end, so that the fuzzer starts behind the first checks. Findings ("found-...") are kept by hand."""
import hashlib
import json
import os
import struct

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus")


def put(target, name, *parts):
    """Parts of an input have a NUL between them."""
    folder = os.path.join(HERE, target)
    os.makedirs(folder, exist_ok=True)
    parts = [p if isinstance(p, bytes) else p.encode() if isinstance(p, str) else
             json.dumps(p, ensure_ascii=False, separators=(",", ":")).encode() for p in parts]
    with open(os.path.join(folder, name), "wb") as file:
        file.write(b"\0".join(parts))


def safetensors(tensors, **metadata):
    """tensors: name -> (type, shape, bytes)."""
    header, data = {}, b""
    if metadata:
        header["__metadata__"] = metadata
    for name, (kind, shape, values) in tensors.items():
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def f32(*values):
    return struct.pack("<%df" % len(values), *values)


# ---- JSON
put("core_json", "all", '{"a": [1, -2.5e+3, 1E-2, true, false, null, "x\\n\\u00e9\\ud83d\\ude00\\u0000"], "": {}}')
put("core_json", "deep", "[" * 64 + "]" * 64)
put("core_json", "numbers", "[0,-0,9223372036854775807,-9223372036854775808,18446744073709551616,1e308,1e309,4.0,1e3]")
put("core_json", "text", '"\u00e9\u65e5\U0001f600 \\" \\\\ \\/ \\b\\f\\n\\r\\t"')

# ---- safetensors
put("core_safetensors", "two", safetensors({"a": ("F32", [2, 1], f32(1, 2)), "b": ("BF16", [3], b"\x80\x3f" * 3)}))
put("core_safetensors", "types", safetensors(
    {"f16": ("F16", [1, 2], b"\0\x3c" * 2), "f4": ("F4", [2], b"\1"), "f6": ("F6_E2M3", [4], b"123"),
     "empty": ("F64", [0, 3], b""), "scalar": ("BOOL", [], b"\1"), "i": ("I64", [1], b"8" * 8)}, format="pt"))
whole = {"metadata": {"total_size": 8}, "weight_map": {"a.x": "a.safetensors", "b": "b.safetensors"}}
put("core_safetensors_index", "two", whole)
put("core_safetensors_index", "shard", {"weight_map": {"t": "a.safetensors"}},
    safetensors({"t": ("F16", [2], b"\0\x3c" * 2)}, format="pt"))
put("core_safetensors_index", "up", {"weight_map": {"b": "../b.safetensors"}})

# ---- config.json
llama = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 172,
         "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 512,
         "max_position_embeddings": 512, "rms_norm_eps": 1e-05, "rope_theta": 10000.0, "hidden_act": "silu",
         "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": [2, 3], "torch_dtype": "float32"}
qwen = dict(llama, architectures=["Qwen2ForCausalLM"], model_type="qwen2", tie_word_embeddings=True, eos_token_id=3,
            use_sliding_window=False, sliding_window=512, max_window_layers=2, torch_dtype="bfloat16")
put("core_model_config", "llama", llama)
put("core_model_config", "llama3", dict(llama, attention_bias=True, mlp_bias=True, head_dim=16, rope_scaling={
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128}))
put("core_model_config", "linear", dict(llama, rope_scaling={"type": "linear", "factor": 2.0}))
put("core_model_config", "qwen2", qwen, {"eos_token_id": [3, 4], "bos_token_id": 2, "do_sample": True})
put("core_model_config", "qwen3", dict(qwen, architectures=["Qwen3ForCausalLM"], model_type="qwen3", head_dim=16,
                                       attention_bias=False))
put("core_model_config", "mistral", dict(llama, architectures=["MistralForCausalLM"], model_type="mistral",
                                         sliding_window=128))

# ---- tokenizer.json
LLAMA3 = ("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
          "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+")
QWEN = LLAMA3.replace("\\p{N}{1,3}", "\\p{N}")


def added(identity, content, special=True, normalized=False, **flags):
    return dict({"id": identity, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
                 "normalized": normalized, "special": special}, **flags)


def byte_level(prefix=False, regex=False):
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": regex}


def bpe(vocab, merges, **more):
    """The first of vocab may be a mark for tokens of the bytes, ids 0 to 255."""
    return dict({"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                 "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                 "vocab": {token: 0 if token[:1] == "@" else 255 + i for i, token in enumerate(vocab)}, "merges": merges}, **more)


def tokenizer(model, tokens=(), normalizer=None, pre=None, post=None, decoder=None):
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": list(tokens),
            "normalizer": normalizer, "pre_tokenizer": pre, "post_processor": post, "decoder": decoder, "model": model}


merged = ["ll", "llo", "\u0120w", "or", "\u0120wor"]
pairs = ["l l", "ll o", "\u0120 w", "o r", "\u0120w or"]
text = "Hello world's 1234\n <|e|>  llo\u00e9"


def split(pattern):
    return {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}, byte_level()]}


put("core_tokenizer", "gpt2", tokenizer(bpe(["@b"] + merged, pairs), [added(261, "<|e|>")], pre=byte_level(regex=True),
                                        post=byte_level(), decoder=byte_level()), text)
put("core_tokenizer", "qwen2", tokenizer(
    bpe(["@b"] + merged, [p.split(" ") for p in pairs], continuing_subword_prefix="", end_of_word_suffix=""),
    [added(261, "<|e|>"), added(262, "world", False)], {"type": "NFC"}, split(QWEN), byte_level(),
    byte_level()), text)
put("core_tokenizer", "llama3", tokenizer(
    bpe(["@b"] + merged, pairs, ignore_merges=True), [added(261, "<|b|>", lstrip=True, rstrip=True)],
    pre=split(LLAMA3), decoder=byte_level(), post={"type": "Sequence", "processors": [byte_level(), {
        "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<|b|>", "type_id": 0}},
                                                 {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [], "special_tokens": {"<|b|>": {"id": "<|b|>", "ids": [261], "tokens": ["<|b|>"]}}}]}), text)
put("core_tokenizer", "smollm2", tokenizer(bpe(["@b"], []), pre={"type": "Sequence", "pretokenizers": [
    {"type": "Digits", "individual_digits": True}, byte_level(regex=True)]}, decoder=byte_level()), text)
put("core_tokenizer", "llama2", tokenizer(
    bpe(["@h", "<unk>", "<s>", "\u2581", "w", "l", "o", "ll", "\u2581w"], ["l l", "\u2581 w"],
        unk_token="<unk>", fuse_unk=True, byte_fallback=True), [added(257, "<s>")],
    {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"},
                                         {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]},
    decoder={"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"},
        {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}), "ll w\u00e9o\n")
put("core_tokenizer", "metaspace", tokenizer(
    bpe(["@h", "<unk>", "\u2581", "a", "b", "ab"], ["a b"], unk_token="<unk>", fuse_unk=True, byte_fallback=True),
    pre={"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": False},
    decoder={"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"},
        {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}), "ab a b")

# ---- GGUF: bytes, and lines (gguf_lines.h)
def gguf(values, tensors, alignment=32, version=3):
    """values: name -> (kind, bytes); tensors: name -> (type, dims, bytes)."""
    def string(text):
        return struct.pack("<Q", len(text.encode())) + text.encode()
    out, data = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(values)), b""
    for key, (kind, value) in values.items():
        out += string(key) + struct.pack("<I", kind) + (string(value) if kind == 8 else value)
    for name, (kind, dims, value) in tensors.items():
        out += string(name) + struct.pack("<I%dQIQ" % len(dims), len(dims), *dims, kind, len(data))
        data += value + b"\0" * (-len(value) % alignment)
    return out + b"\0" * (-len(out) % alignment) + data


put("core_gguf", "values", gguf({
    "general.architecture": (8, "llama"), "a.u8": (0, b"\1"), "a.i16": (3, b"\1\0"), "a.u32": (4, b"\1\0\0\0"), "a.f32": (6, f32(2)),
    "a.bool": (7, b"\1"), "a.i64": (11, b"\xff" * 8), "a.f64": (12, struct.pack("<d", 1e300)),
    "s": (9, struct.pack("<IQQ", 8, 2, 1) + b"x" + struct.pack("<Q", 0)),
    "n": (9, struct.pack("<IQ", 5, 2) + b"\1\0\0\0" * 2)}, {"a": (0, [2], f32(1, 2)), "b": (30, [1, 3], b"\x80\x3f" * 3)}))
put("core_gguf", "blocks", gguf({"general.alignment": (4, struct.pack("<I", 8))}, {
    "q8": (8, [32, 2], b"\0\x3c" * 34), "q4": (2, [32], b"\0\x3c" * 9), "f16": (1, [1, 1, 1, 3], b"\0\x3c" * 3)}, 8, 2))
put("core_gguf", "q6_k", gguf({}, {"q6": (14, [256], b"\0\x3c" * 105)}))
put("core_gguf", "q4_k", gguf({}, {"q4": (12, [256], b"\0\x3c" * 72), "other": (24, [3], b"123")}))
put("core_gguf", "empty", gguf({}, {}))


def lines(values, tensors=()):
    """values: (key, kind, value or elements ...), tensors: (name, type, dims ...)."""
    return "".join("\t".join(map(str, row)) + "\n" for row in list(values) + [("=",) + tensor for tensor in tensors])


def gguf_model(name, *more, tokens=(), tensors=()):
    layer = [("blk.0.%s.weight" % part, 0) + dims for part, dims in [
        ("attn_norm", (8,)), ("ffn_norm", (8,)), ("attn_q", (8, 8)), ("attn_k", (8, 4)), ("attn_v", (8, 4)),
        ("attn_output", (8, 8)), ("ffn_gate", (8, 6)), ("ffn_up", (8, 6)), ("ffn_down", (6, 8))]]
    return lines([("general.architecture", 8, name), ("general.type", 8, "model")] +
                 [("%s.%s" % (name, key), 4, value) for key, value in [
                     ("context_length", 16), ("embedding_length", 8), ("block_count", 1), ("feed_forward_length", 6),
                     ("attention.head_count", 2), ("attention.head_count_kv", 1)]] +
                 [("%s.attention.layer_norm_rms_epsilon" % name, 6, 1e-5)] + list(more) + list(tokens),
                 [("token_embd.weight", 0, 8, 265), ("output_norm.weight", 0, 8)] + layer + list(tensors))


def qk(name, dims):
    return tuple(("blk.0.attn_%s.%s" % (part, name), 0, n) for part, n in zip("qk", dims))


sentence = [("tokenizer.ggml.model", 8, "llama"),
            ("tokenizer.ggml.tokens", 9, 8, "<unk>", "<s>", "</s>", "*256 h", "\u2581", "l", "o", "w", "\u2581l", "\u2581lo"),
            ("tokenizer.ggml.scores", 9, 6, "*259 0", -4, -5, -6, -7, -1, -2),
            ("tokenizer.ggml.token_type", 9, 5, 2, 3, 3, "*256 6", "*6 1"),
            ("tokenizer.ggml.bos_token_id", 4, 1), ("tokenizer.ggml.eos_token_id", 4, 2),
            ("tokenizer.ggml.unknown_token_id", 4, 0), ("tokenizer.ggml.add_space_prefix", 7, 1)]


def byte_tokens(pre, *more):
    return [("tokenizer.ggml.model", 8, "gpt2"), ("tokenizer.ggml.pre", 8, pre),
            ("tokenizer.ggml.tokens", 9, 8, "*256 b", "ll", "llo", "<|e|>"),
            ("tokenizer.ggml.token_type", 9, 5, "*258 1", 3),
            ("tokenizer.ggml.merges", 9, 8, "l l", "ll o"), ("tokenizer.ggml.eos_token_id", 4, 258)] + list(more)


put("core_gguf_model", "llama", gguf_model("llama", tokens=sentence, tensors=[("output.weight", 1, 8, 265)]))
put("core_gguf_model", "llama3", gguf_model("llama", ("llama.rope.freq_base", 6, 500000), ("llama.vocab_size", 4, 265), tokens=sentence,
                                            tensors=[("rope_freqs.weight", 0, 2, ":", 1, 1)]))
put("core_gguf_model", "mistral", gguf_model("llama", ("llama.attention.sliding_window", 4, 8), (
    "llama.rope.scaling.type", 8, "linear"), ("llama.rope.scaling.factor", 6, 4), tokens=sentence))
put("core_gguf_model", "qwen2", gguf_model("qwen2", tokens=sentence, tensors=qk("bias", (8, 4)) + (("blk.0.attn_v.bias", 0, 4),)))
put("core_gguf_model", "qwen3", gguf_model("qwen3", ("qwen3.attention.key_length", 4, 4), (
    "qwen3.attention.value_length", 4, 4), tokens=sentence, tensors=qk("_norm.weight", (4, 4))).replace("attn_q._norm", "attn_q_norm")
    .replace("attn_k._norm", "attn_k_norm"))
put("core_tokenizer_gguf", "llama", lines(sentence), "low l\nw")
put("core_tokenizer_gguf", "qwen2", lines(byte_tokens("qwen2", ("tokenizer.ggml.add_bos_token", 7, 0))), "Hello 12\n<|e|>")
put("core_tokenizer_gguf", "llama3", lines(byte_tokens("llama-bpe", ("tokenizer.ggml.bos_token_id", 4, 258))), "Hllo 121\n")
put("core_tokenizer_gguf", "smollm", lines(byte_tokens("smollm", ("tokenizer.ggml.add_eos_token", 7, 1))), "ollo 21")
put("core_tokenizer_gguf", "gpt2", lines(byte_tokens("gpt-2")), "Hollo\n\n 1")

# ---- a cache of downloads, pins of models
put("core_hub", "name", "o/n@refs/pr/1", "0123456789abcdef0123456789abcdef01234567\n")
put("core_hub", "path", "/c/models--o--n/snapshots/0123456789abcdef0123456789abcdef01234567", "/c/models--o--n/blobs/a")
empty = hashlib.sha256(b"{}").hexdigest()
put("experiments_model_lock", "holds", {"version": 1, "models": {"m": {"config.json": empty}}})
put("experiments_model_lock", "two", {"version": 1, "models": {"a/b": {"x": "0" * 64}, "./m": {"config.json": "1" * 64}}})

# ---- chat templates, pre-training
put("rl_chat", "text", {"chat_template": "{% for m in messages %}"}, "Q: {question}\nA:", "1 <|im_end|>?", "2 </think> 3", " 4 ")
put("rl_chat", "list", {"chat_template": [{"name": "default", "template": "x"}, {"name": "rag", "template": "y"}]},
    "<s>{question}</s>", "<|eot_id|>")
put("rl_pretrain", "pages", {"config": "config.json", "tokenizer": "/t.json", "corpus": "c.jsonl", "output": "out", "seed": 1,
                             "steps": 10, "batch_tokens": 64, "warmup_steps": 2, "lr": 0.01, "weight_decay": 0.1, "beta2": 0.95,
                             "grad_clip": 1, "init_std": 0.02, "question_weight": 0.25},
    '{"page": ["1+1?", "2", "<s>", "\u00e9"]}\n\n{"page": ["a", "b"]}')

# ---- rows
put("rl_dataset", "lines", '{"question": "1 + 1?", "answer": "2\\n#### 2", "id": 1}\n\n'
    '\ufeff{"question": "x", "answer": "y"}\n')
put("rl_dataset", "bom", '\ufeff{"question": "What?", "input": "", "answer": 145.0, "id": "a"}\r\n'
    '{"question": "What?", "input": "i", "answer": 3, "id": "b"}')
put("rl_dataset", "array", [{"question": "a", "input": "b", "answer": "1 #### -1,234.5", "id": 7},
                            {"question": "", "input": "", "answer": "2"}])
put("rl_dataset", "twins", '{"question":"q","answer":"#### 1"}\n{"question":"q","answer":"#### 1"}')

put("cli_texts", "lines", 'plain words\r\n\n"a \\"string\\""\n{"text": "of an \\u00f6bject", "id": 1}\nno end')

# ---- a learner's checkpoint
def checkpoint(n, moments, step, values):
    body = b"TLCK" + struct.pack("<IQQqqq", 1, n, moments, step, step, 100) + f32(*values)
    return body + hashlib.sha256(body).hexdigest().encode()


put("rl_checkpoint", "adamw", checkpoint(3, 2, 5, [0.5, -1, 2] + [0.1] * 6))
put("rl_checkpoint", "v", checkpoint(2, 0, 1, [1, 2]))
put("rl_checkpoint", "none", checkpoint(0, 0, 0, []))

# ---- completions and their answers
put("rl_extract", "gsm8k", "She has 3 * 4 = <<3*4=12>>12.\n#### 1,234.50", "18 apples\n#### 1234.5")
put("rl_extract", "boxed", "so $x = \\boxed{\\frac{1}{2}}$ and \\fbox{3}", "\\dfrac12")
put("rl_extract", "latex", "The answer is $\\boxed{\\left(3,\\frac{\\pi}{2}\\right)}$.", "(3,\\tfrac{\\pi}2)")
put("rl_extract", "units", "The answer is -12\\text{ cm}^2 or \\boxed{0.5}", "\\sqrt3 = 50\\% \\$")
put("rl_extract", "boxed_space", "\\boxed 5$ then \\boxed{ {a}{b} } \\begin{pmatrix}1\\\\2\\end{pmatrix}", "x=1/2")

# ---- lines of a reward command
put("rl_reward_answer", "reward", '{"reward": 0.5, "id": 7, "more": [1]}')
put("rl_reward_answer", "error", '{"error": "not compiled", "id": 7.0}')
put("rl_reward_answer", "other", '{"reward": 1e400, "id": 8}')

# ---- PEFT folders, for the model of adapters_peft.c
lora = {"peft_type": "LORA", "r": 1, "lora_alpha": 8, "lora_dropout": 0.0, "bias": "none", "use_rslora": True,
        "init_lora_weights": True, "target_modules": ["q_proj"], "fan_in_fan_out": False, "modules_to_save": None}
q = "base_model.model.model.layers.0.self_attn.q_proj."
up = "base_model.model.model.layers.0.mlp.up_proj."
put("adapters_peft", "lora", lora, safetensors({q + "lora_A.weight": ("F32", [1, 4], f32(1, 2, 3, 4)),
                                                q + "lora_B.weight": ("F32", [4, 1], f32(4, 3, 2, 1))}, format="pt"))
put("adapters_peft", "ranks", dict(lora, use_rslora=False, rank_pattern={"up_proj": 2}), safetensors(
    {q + "lora_A.weight": ("BF16", [1, 4], b"\x80\x3f" * 4), q + "lora_B.weight": ("F16", [4, 1], b"\0\x3c" * 4),
     up + "lora_A.weight": ("BF16", [2, 4], b"\x80\x3f" * 8), up + "lora_B.weight": ("BF16", [6, 2], b"\0\0" * 12)}))
put("adapters_peft", "tinylora", {"peft_type": "TINYLORA", "r": 1, "u": 2, "weight_tying": 1.0, "save_projection": True,
                                  "projection_seed": 42, "target_modules": ["q_proj"]}, safetensors(
    {q + "tinylora_A": ("F32", [1, 4], f32(1, 2, 3, 4)), q + "tinylora_B": ("F32", [4, 1], f32(1, 2, 3, 4)),
     q + "tinylora_P": ("F32", [2, 1, 1], f32(1, 2)), "base_model.tinylora_v.0": ("F32", [2], f32(0.5, 0.25))},
    **{"tinylora.weights_sha256": "0" * 64}))
put("adapters_tie_map", "two", {"model.layers.0.self_attn.q_proj": 0, "model.layers.0.self_attn.o_proj": 1,
                                "model.layers.1.self_attn.q_proj": 0})

# ---- run configs, with overrides
put("experiments_config", "sft", {"experiment": "e", "model": "m", "method": "sft", "data": {"train": "train.jsonl"},
                                  "adapter": {"method": "tinylora", "budget": 13, "rank": 2},
                                  "optimizer": {"lr": 0.01, "name": "adamw"}, "steps": 3, "seed": 1})
put("experiments_config", "grpo", {
    "model": "m", "method": "grpo", "data": {"train": "t", "dev": "d", "template": "Q: {question}"},
    "reward": [{"name": "exact_match", "extractor": "verl"}, {"name": "length", "weight": -0.5, "length": 20}],
    "grpo": {"group_size": 4, "prompts_per_step": 2, "loss": "gspo", "scale_rewards": "auto", "temperature": 1.0},
    "eval": {"samples": 4, "pass_k": 2, "greedy": False}}, "grpo.loss=dapo")
put("experiments_config", "sweep", {"model": "m", "method": "sft", "data": {"train": "t"}, "sweep": {
    "optimizer.lr": {"log": [1e-4, 1e-2], "points": 3}, "grpo.clip_high": {"linear": [0.2, 0.4], "points": 2},
    "zip": {"steps": [1, 2], "seed": [1, 2]},
    "sobol": {"points": 2, "optimizer.weight_decay": {"linear": [0.1, 0.4]}}}}, "sweep.steps=[1,2]")
put("experiments_config", "grids", {"model": "m", "method": "sft", "data": {"train": "t"}, "sweep": [
    {"adapter.budget": [13, 26]}, {"adapter": [{"method": "lora", "rank": 2, "alpha": 4}, {"method": "lora-xs"}]}]},
    "?steps=5")
put("experiments_config", "scan", {"model": "m", "method": "scan", "data": {"train": "t"}, "scan": {
    "x": "-1.5:1.5:3", "y": "-1.5:1.5:3", "rows": 8, "max_length": 512, "values": ["loss", "accuracy"]}})

# ---- exported adapters
values = f32(0.5, -1)
put("experiments_descriptor", "bytes", {
    "format": "tinylora-adapter", "version": 1, "run": "0123456789abcdef", "step": 3,
    "model": {"name": "m", "weights_sha256": "0" * 64, "tokenizer_sha256": "1" * 64},
    "adapter": {"method": "tinylora", "rank": 2, "u": 1, "groups": 2, "tie": "tiled"},
    "values": {"file": "v.bin", "dtype": "f32", "n": 2, "n_bytes": 8, "sha256": hashlib.sha256(values).hexdigest()},
    "check": {"factors_sha256": "0" * 64, "projection_sha256": "0" * 64, "modules": []}}, values)

# ---- results.db: edits of five bytes
put("results_store", "header", b"\x12\0\0\1\1")
put("results_store", "version", b"\x3c\0\0\0\x09" + b"\x64\0\x80\x0d\0")
put("results_store", "pages", b"".join(struct.pack("<I", (4096 * k + 3) | 1 << 23)[:3] + bytes([k, 5]) for k in range(1, 9)))
