#!/usr/bin/env python3
"""The extractors beside the harnesses' own code: every row by lm-evaluation-harness, verl and `tinylora extract`.

    PYTHONPATH=DIR tests/extract_peers.py SHARED PROGRAM

DIR: where lm-eval 0.4 and verl are unpacked or installed (pip download --no-deps lm-eval verl; unzip both; numpy,
sacrebleu and pyyaml are what lm-eval's filters and metric need). Nothing of theirs is here. lm-eval: the filters and the
metric of tasks/gsm8k/gsm8k.yaml, and hendrycks_math's is_equiv behind its last_boxed_only_string; verl: gsm8k.py, both
methods, and math_reward.py. Rows: those of extract_golden.py, and GSM8K's solutions with random edits.
"""
import contextlib
import importlib.util
import io
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import types

import yaml

from extract_golden import MARKED, random_set, sets

sys.modules.setdefault("datasets", types.ModuleType("datasets")).Dataset = object  # of a signature


def load(path):
    for folder in sys.path:
        if os.path.exists(os.path.join(folder, path)):
            spec = importlib.util.spec_from_file_location(os.path.basename(path)[:-3], os.path.join(folder, path))
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return module
    sys.exit(f"{path} is in no folder of PYTHONPATH")


def lm_eval_gsm8k():
    """{our name: completion, answer -> verdict}"""
    import lm_eval
    from lm_eval.api.instance import Instance
    from lm_eval.api.registry import get_metric
    from lm_eval.filters import build_filter_ensemble
    with open(os.path.join(os.path.dirname(lm_eval.__file__), "tasks/gsm8k/gsm8k.yaml")) as file:
        task = yaml.safe_load(file)
    metric = {k: v for k, v in task["metric_list"][0].items() if k not in ("metric", "aggregation", "higher_is_better")}
    exact_match = get_metric("exact_match")

    def scorer(wanted):
        steps = [(f.pop("function"), f or None) for f in map(dict, wanted["filter"])]
        ensemble = build_filter_ensemble(wanted["name"], steps)

        def score(completion, answer):
            instance = Instance("generate_until", {}, (), 0, ("gsm8k", 0, 1))
            instance.resps = [completion]
            ensemble.apply([instance])
            read = instance.filtered_resps[wanted["name"]]
            return bool(exact_match(predictions=[read], references=[answer], **metric)["exact_match"])
        return score
    filters = {f["name"]: f for f in task["filter_list"]}
    return {"strict": scorer(filters["strict-match"]), "flexible": scorer(filters["flexible-extract"])}


def number_of(answer):
    """What verl's preprocessing stores of a row of GSM8K (examples/data_preprocess/gsm8k.py)."""
    match = MARKED.search(answer)
    return match.group(1).replace(",", "") if match else answer.replace(",", "")


def hendrycks(module):
    def score(completion, answer):
        with contextlib.redirect_stdout(io.StringIO()):
            try:
                boxed = module.last_boxed_only_string(completion)
                return boxed is not None and bool(module.is_equiv(module.remove_boxed(boxed), answer))
            except AssertionError:
                return False
    return score


def verl_math(module):
    def score(completion, answer):
        with contextlib.redirect_stdout(io.StringIO()):
            return module.compute_score(completion, answer) == 1
    return score


def peers():
    """[(name of the peer, our extractor, completion, answer -> verdict)]"""
    gsm8k, math = load("verl/utils/reward_score/gsm8k.py"), verl_math(load("verl/utils/reward_score/math_reward.py"))
    harness = hendrycks(load("lm_eval/tasks/hendrycks_math/utils.py"))
    for name, score in lm_eval_gsm8k().items():
        yield "lm-eval gsm8k", name, score
    for method in ["strict", "flexible"]:
        yield "verl gsm8k", f"verl_{method}", lambda c, a, m=method: gsm8k.compute_score(c, number_of(a), m) == 1
    for peer, score in [("lm-eval math", harness), ("verl math", math)]:
        yield peer, "boxed", lambda c, a, s=score: s(c, number_of(a) if MARKED.search(a) else a)


EDITS = ["$", ",", ".", "-", " ", "\n", "#### ", "####", "#", "0", "7", ".00", " dollars", "%", "\u00bd", "\\boxed{",
         "}", "A: ", "x", "\t", "1,000", "$ 5", "..", "-.", "= "]


def mutated(shared):
    """GSM8K's solutions with one to six edits, most of them near the end, where the answer is."""
    draw = random.Random(11)
    for label, rows in sets(shared):
        if " boxed" in label or not label.startswith(("6b", "175b")):
            continue
        changed = []
        for completion, answer in rows:
            for _ in range(draw.randrange(1, 7)):
                near = max(0, len(completion) - 12) if draw.random() < 0.8 else 0
                at = draw.randrange(near, len(completion) + 1)
                cut = draw.choice([0, 0, 0, 1, 3])
                completion = completion[:at] + draw.choice(EDITS) + completion[at + cut:]
            changed.append((completion, answer))
        yield label + ", edited", changed


def ours(program, rows):
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        for completion, answer in rows:
            file.write(json.dumps({"completion": completion, "answer": answer}) + "\n")
        file.flush()
        out = subprocess.run([program, "-o", "jsonl", "extract", "--file", file.name], check=True, capture_output=True,
                             text=True).stdout
    return {(t["line"], t["extractor"]): t["correct"] for t in map(json.loads, re.split("\n", out.strip()))}


def main():
    shared, program = sys.argv[1:3]
    judges, n_all, n_differ = list(peers()), 0, 0
    for label, rows in [*sets(shared), *mutated(shared), ("random", random_set())]:
        told = ours(program, rows)
        for peer, name, score in judges:
            right = 0
            for line, (completion, answer) in enumerate(rows, 1):
                verdict = score(completion, answer)
                right += verdict
                n_all += 1
                if verdict != told[line, name]:
                    n_differ += 1
                    print(f"{label} row {line}: {peer} says {verdict}, {name} {told[line, name]}: "
                          f"{completion[-80:]!r} for {answer[-40:]!r}", file=sys.stderr)
            print(f"{label:28} {len(rows):6} rows  {peer:14} {name:14} {right:6} right")
    print(f"{n_all} verdicts, {n_differ} of them others than the peers'")
    return n_differ > 0


if __name__ == "__main__":
    sys.exit(main())
