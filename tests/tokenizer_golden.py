"""Golden figures of Hugging Face tokenizers (made with tokenizers 0.23.3, unicodedata2 15.0.0).

  tokenizer_golden.py DATA OUT   of the five real tokenizers under DATA (../shared/data): SHA-256 of the ids of the first
                                 2,000 questions and answers of GSM8K, of all characters of Unicode 15, of 10^6 of one
                                 thing; the ids of texts made of awkward pieces, by the five as they are and with steps
                                 that other real files carry: OUT
  tokenizer_golden.py --speed TOKENIZER FILE...   MB/s over the rows' questions and answers, one thread, one at a time

No test needs Python: test_core_tokenizer_golden.c reads what was left in tests/data/tokenizers.
"""
import hashlib
import json
import os
import pathlib
import random
import struct
import sys
import time

os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
import tokenizers

NAMES = ["qwen2.5", "llama3.2", "smollm2", "llama2", "gpt2"]
ROWS = 2000
MILLION = [" ", "a", "\n", "^", "0", "\u0301", "\U0001f680"]
ATOMS = ["a", "Z", "7", "123456", " ", "  ", "   ", "\n", "\r\n", "\n\n", "\t", "'s", "'RE", "'\u017f", "'", "!", "...",
         "\u00e9", "e\u0301", "\u2003", "\u65e5\u672c", "\U0001f680", "\u00a0", "\u0663", "ing", " the", "Hello", "x=1",
         "\u2581", "<s>", "</s>", "<|im_end|>", "<|eot_id|>", "\u00df", "\u01c5", "\u0939\u093f", "\u3000", "\u200d",
         "\u212a", "_", "->", "\U000e0001", "\ufeff", "\u1100\u1161", "\uac00", "\u00b2", "\u2160", "\u0e33"]
BYTE_LEVEL = '{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":%s}'


def metaspace(more):
    return '"normalizer":null,"pre_tokenizer":{"type":"Metaspace","replacement":"\u2581",%s},' % more


def split(pattern, behavior, invert):
    step = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": invert}
    return '"normalizer":null,"pre_tokenizer":{"type":"Sequence","pretokenizers":[%s,%s]},' % (
        json.dumps(step), BYTE_LEVEL % "false")


LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
STEPS = [  # what stands between "normalizer" and "post_processor"
    ("llama2", metaspace('"prepend_scheme":"first","split":false')),  # Mistral 0.3, Llama 2 converted since
    ("llama2", metaspace('"prepend_scheme":"always","split":false')),
    ("llama2", metaspace('"prepend_scheme":"always","split":true')),
    ("llama2", metaspace('"prepend_scheme":"never","split":true')),
    ("llama2", metaspace('"add_prefix_space":true')),  # as files had it before prepend_scheme
    ("llama2", metaspace('"add_prefix_space":false,"prepend_scheme":"never"')),
    ("llama2", '"normalizer":{"type":"Replace","pattern":{"String":" "},"content":"\u2581"},"pre_tokenizer":null,'),
    ("llama3.2", split(LLAMA3, "Removed", True)),  # as cl100k is written
    ("gpt2", '"normalizer":{"type":"NFC"},"pre_tokenizer":{"type":"Sequence","pretokenizers":['
             '{"type":"Digits","individual_digits":false},%s]},' % (BYTE_LEVEL % "true")),
    ("gpt2", '"normalizer":null,"pre_tokenizer":%s,' % (BYTE_LEVEL % "true").replace("false", "true")),
]


def digest(encodings):
    h = hashlib.sha256()
    n = 0
    for ids in encodings:
        h.update(struct.pack("<%di" % len(ids), *ids))
        n += len(ids)
    return {"n": n, "sha256": h.hexdigest()}


def rows(path, n=None):
    texts = []
    with open(path, encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            texts += [row[key] for key in ("question", "answer") if key in row]
            if n and len(texts) == 2 * n:
                break
    return texts


def characters(name):
    """All that Unicode 15 assigns but surrogates. SmolLM2 has no tokens for most control characters; the NFC of
    tokenizers does not know how marks newer than Unicode 9 are ordered, so that Qwen's have a line each."""
    import unicodedata2 as unicodedata  # Python's own is of another Unicode
    assert unicodedata.unidata_version.startswith("15."), unicodedata.unidata_version
    assigned = (c for c in range(0x110000) if unicodedata.category(chr(c)) not in ("Cn", "Cs"))
    text = ("\n" if name == "qwen2.5" else "").join(map(chr, assigned))
    if name == "smollm2":
        text = "".join(c for c in text if not (0 < ord(c) < 32 and c not in "\t\n\r") and ord(c) != 127)
    return text


def encode(tokenizer, text, special=False):
    return tokenizer.encode(text, add_special_tokens=special).ids


def awkward(seed, n):
    r = random.Random(seed)
    return ["".join(r.choice(ATOMS) for _ in range(r.randrange(1, 24))) for _ in range(n)]


def with_steps(text, steps):
    start, end = text.index('"normalizer"'), text.index('"post_processor"')
    return text[:start] + steps + text[end:]


def read(path):
    """Merges that are strings with more than one space, as in old files of Llama 2, as pairs: no reader of today knows
    where to cut them but by the vocabulary."""
    text = path.read_text(encoding="utf-8")
    file = json.loads(text)
    merges, vocab = file["model"]["merges"], file["model"]["vocab"]
    if all(isinstance(m, list) or m.count(" ") == 1 for m in merges):
        return text
    for i, merge in enumerate(merges):
        cuts = [(merge[:at], merge[at + 1:]) for at, c in enumerate(merge) if c == " "]
        [merges[i]] = [c for c in cuts if len(cuts) == 1 or all(t in vocab for t in (*c, "".join(c)))]
    return json.dumps(file, ensure_ascii=False, separators=(",", ":"))


def golden(data, out):
    result = {"texts": awkward(1, 80), "tokenizers": [], "steps": []}
    for name in NAMES:
        tokenizer = tokenizers.Tokenizer.from_str(read(data / "tokenizers" / name / "tokenizer.json"))
        tokenizer.no_truncation()  # SmolLM2's file says 1,024 ids
        result["tokenizers"].append({
            "name": name,
            "gsm8k": digest(encode(tokenizer, t, True) for t in rows(data / "gsm8k/train.jsonl", ROWS)),
            "characters": digest([encode(tokenizer, characters(name))]),
            "million": [digest([encode(tokenizer, atom * 10**6)]) for atom in MILLION],
            "texts": digest(encode(tokenizer, t) for t in result["texts"])})
        print(name, flush=True)
    for name, steps in STEPS:
        text = read(data / "tokenizers" / name / "tokenizer.json")
        tokenizer = tokenizers.Tokenizer.from_str(with_steps(text, steps))
        result["steps"].append({"name": name, "steps": steps,
                                "texts": digest(encode(tokenizer, t) for t in result["texts"])})
    out.write_text(json.dumps(result, indent=1) + "\n")


def speed(path, files):
    tokenizer = tokenizers.Tokenizer.from_file(path)
    texts = [text for file in files for text in rows(file)]
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    times = []
    for _ in range(3):
        start = time.perf_counter()
        for text in texts:
            tokenizer.encode(text)
        times.append(time.perf_counter() - start)
    print("%-6s %6.2f MB %8d texts %8s        %8.1f %8.1f MB/s" % (
        "peer", megabytes, len(texts), "", megabytes / min(times), megabytes / sorted(times)[1]))


if __name__ != "__main__":
    pass
elif sys.argv[1] == "--speed":
    speed(sys.argv[2], sys.argv[3:])
else:
    golden(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
