"""The peer: the same tasks as bench_engine.c in PyTorch, on the same shape, with random weights.

usage: peer_torch.py CONFIG DTYPE THREADS REPEATS decode SEQUENCES NEW | prefill TOKENS | train SEQUENCES TOKENS
       peer_torch.py CONFIG DTYPE THREADS REPEATS scan TOKENS ROWS

Prints the same line: task, unit, best, median, peak MiB after loading, peak MiB at the end.
It is written the way PyTorch is fast on a CPU: fused attention where this PyTorch has it, no cache
copies while decoding, in-place residuals without a gradient, the loss on all positions at once.
"""
import json
import resource
import sys
import time

import torch
import torch.nn.functional as F

PROMPT, BUDGET, RANK = 128, 13, 2


def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class Linear:
    """A frozen weight with its part of the adapter: y = W x + b + U S R V^T x, R = v[group] P."""

    def __init__(self, n_out, n_in, bias, dtype, group):
        self.weight = torch.randn(n_out, n_in, dtype=dtype) * 0.02
        self.bias = torch.randn(n_out, dtype=dtype) * 0.02 if bias else None
        self.us = torch.randn(n_out, RANK, dtype=dtype) * 0.02
        self.vt = torch.randn(RANK, n_in, dtype=dtype) * 0.02
        self.p = torch.randn(RANK, RANK)
        self.group = group

    def __call__(self, x, v):
        y = F.linear(x, self.weight, self.bias)
        if v is None:
            return y
        r = (v[self.group] * self.p).to(x.dtype)
        return y + F.linear(F.linear(F.linear(x, self.vt), r), self.us)


class Model:
    def __init__(self, config, dtype):
        self.dtype = dtype
        self.width = config["hidden_size"]
        self.heads = config["num_attention_heads"]
        self.kv_heads = config["num_key_value_heads"]
        self.head = self.width // self.heads
        self.vocab = config["vocab_size"]
        self.eps = config["rms_norm_eps"]
        n_layers, ff, kv = config["num_hidden_layers"], config["intermediate_size"], self.kv_heads * self.head
        shapes = [(self.width, self.width, True), (kv, self.width, True), (kv, self.width, True), (self.width, self.width, False),
                  (ff, self.width, False), (ff, self.width, False), (self.width, ff, False)]
        n_modules = 7 * n_layers
        self.layers = [[Linear(o, i, b, dtype, (7 * n + k) * BUDGET // n_modules) for k, (o, i, b) in enumerate(shapes)]
                       for n in range(n_layers)]
        self.norm = torch.ones(self.width, dtype=dtype)
        self.embedding = torch.randn(self.vocab, self.width, dtype=dtype) * 0.02
        angle = torch.outer(torch.arange(4096.0), config["rope_theta"] ** (-torch.arange(0, self.head, 2) / self.head))
        self.cos = torch.cat((angle.cos(), angle.cos()), -1).to(dtype)
        self.sin = torch.cat((angle.sin(), angle.sin()), -1).to(dtype)

    def rms(self, x):
        wide = x.float()
        return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)).to(x.dtype) * self.norm

    def rotate(self, x, at):
        n = x.shape[2]
        low, high = x.chunk(2, -1)
        return x * self.cos[at:at + n] + torch.cat((-high, low), -1) * self.sin[at:at + n]

    def attend(self, q, k, v, causal):
        """q: (B, H, T, d); k, v: (B, kv, S, d). Query heads that share a key head become rows of one product."""
        b, h, t, d = q.shape
        s, share = k.shape[2], h // self.kv_heads
        if causal and hasattr(F, "scaled_dot_product_attention"):
            k = k.repeat_interleave(share, 1)
            v = v.repeat_interleave(share, 1)
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)
        q = q.reshape(b, self.kv_heads, share * t, d)
        scores = (q @ k.transpose(2, 3)) * d ** -0.5
        if causal:
            mask = torch.full((t, s), float("-inf"), dtype=q.dtype).triu(1)
            scores = (scores.view(b, self.kv_heads, share, t, s) + mask).view(b, self.kv_heads, share * t, s)
        p = torch.softmax(scores, -1, dtype=torch.float32).to(q.dtype)
        return (p @ v).view(b, h, t, d)

    def forward(self, ids, v=None, cache=None, at=0):
        x = F.embedding(ids, self.embedding)
        b, t = ids.shape
        for n, (q_proj, k_proj, v_proj, o_proj, gate, up, down) in enumerate(self.layers):
            h = self.rms(x)
            q = self.rotate(q_proj(h, v).view(b, t, self.heads, self.head).transpose(1, 2), at)
            k = self.rotate(k_proj(h, v).view(b, t, self.kv_heads, self.head).transpose(1, 2), at)
            value = v_proj(h, v).view(b, t, self.kv_heads, self.head).transpose(1, 2)
            if cache is not None:
                keys, values = cache[n]
                keys[:, :, at:at + t] = k
                values[:, :, at:at + t] = value
                k, value = keys[:, :, :at + t], values[:, :, :at + t]
            a = self.attend(q, k, value, t > 1).transpose(1, 2).reshape(b, t, self.width)
            x = x + o_proj(a, v)
            h = self.rms(x)
            x = x + down(F.silu(gate(h, v)) * up(h, v), v)
        return self.rms(x)

    def logits(self, h):
        return F.linear(h, self.embedding).float()


def decode(model, repeats, n_sequences, n_new):
    rates = []
    with torch.inference_mode():
        ids = torch.randint(0, model.vocab, (1, PROMPT)).expand(n_sequences, PROMPT)
        shape = (n_sequences, model.kv_heads, PROMPT + n_new, model.head)
        cache = [(torch.zeros(shape, dtype=model.dtype), torch.zeros(shape, dtype=model.dtype)) for _ in model.layers]
        first = model.forward(ids, cache=cache)[:, -1]
        for repeat in range(repeats + 1):
            h, n = first, 2 if repeat == 0 else n_new
            start = time.perf_counter()
            for i in range(n):
                token = torch.multinomial(torch.softmax(model.logits(h), -1), 1)
                h = model.forward(token, cache=cache, at=PROMPT + i)[:, -1]
            if repeat:
                rates.append(n_sequences * n / (time.perf_counter() - start))
    return "tokens/s", rates


def prefill(model, repeats, n_tokens):
    rates = []
    with torch.inference_mode():
        ids = torch.randint(0, model.vocab, (1, n_tokens))
        for repeat in range(repeats + 1):
            start = time.perf_counter()
            model.logits(model.forward(ids)[:, -1])
            if repeat:
                rates.append(n_tokens / (time.perf_counter() - start))
    return "tokens/s", rates


def train(model, repeats, n_sequences, n_tokens):
    seconds = []
    v = torch.zeros(BUDGET, requires_grad=True)
    optimizer = torch.optim.SGD([v], lr=1e-3)
    ids = torch.randint(0, model.vocab, (n_sequences, n_tokens))
    for repeat in range(repeats + 1):
        start = time.perf_counter()
        h = model.forward(ids[:, :-1], v)
        loss = F.cross_entropy(model.logits(h).view(-1, model.vocab), ids[:, 1:].reshape(-1))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        del h, loss
        if repeat:
            seconds.append(time.perf_counter() - start)
    return "s/step", seconds


def scan(model, repeats, path, n_rows):
    """One point of a surface: the loop that a researcher writes, over the rows that bench_scan wrote ("prompt ids ...").
    Batches of four padded to the longest, labels of prompt and padding masked. The first n_rows, scaled to all by tokens."""
    rows = [[int(n) for n in line.split()] for line in open(path)]
    all_tokens, tokens = sum(len(r) - 1 for r in rows), sum(len(r) - 1 for r in rows[:int(n_rows)])
    v, seconds = torch.full((BUDGET,), 0.01), []
    with torch.inference_mode():
        for repeat in range(repeats + 1):
            start, loss, n = time.perf_counter(), 0.0, 0
            for i in range(0, 4 if repeat == 0 else int(n_rows), 4):
                some = rows[i:i + 4]
                longest = max(len(r) - 1 for r in some)
                ids, labels = torch.zeros(len(some), longest, dtype=torch.long), torch.full((len(some), longest), -100)
                for k, (prompt, *row) in enumerate(some):
                    ids[k, :len(row)] = torch.tensor(row)
                    labels[k, prompt:len(row)] = torch.tensor(row[prompt:])
                logits = model.logits(model.forward(ids, v)[:, :-1])
                loss += F.cross_entropy(logits.reshape(-1, model.vocab), labels[:, 1:].reshape(-1), reduction="sum").item()
                n += int((labels[:, 1:] != -100).sum())
            if repeat:
                seconds.append((time.perf_counter() - start) * all_tokens / tokens)
    return "s/point", seconds


def main():
    config, dtype, threads, repeats, task = json.load(open(sys.argv[1])), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    model = Model(config, {"f32": torch.float32, "bf16": torch.bfloat16}[dtype])
    loaded = peak_mib()
    run = {"decode": decode, "prefill": prefill, "train": train, "scan": scan}[task]
    unit, values = run(model, repeats, *[a if task == "scan" else int(a) for a in sys.argv[6:]])
    values.sort()
    n = len(values)
    median = values[n // 2] if n % 2 else (values[n // 2 - 1] + values[n // 2]) / 2
    best = values[0] if task in ("train", "scan") else values[-1]
    print("%s %s %.4f %.4f %.0f %.0f" % (task, unit, best, median, loaded, peak_mib()))


main()
