#!/usr/bin/env python3
"""What the extractors' rules say, by Python's own re, of the completions that test_rl_extract.c reads too.

    tests/extract_golden.py SHARED            the figures that are kept in test_rl_extract.c
    tests/extract_golden.py SHARED PROGRAM    and every row and extractor of PROGRAM extract against them

SHARED: the folder with data/gsm8k. Regular expressions and steps as the harnesses state them (lm-evaluation-harness
gsm8k 3.0, verl's gsm8k.py, grade-school-math, MATH's is_equiv); written from the rules, not from the C.
"""
import hashlib
import json
import random
import re
import subprocess
import sys
import tempfile

TABLE = ["#### 18", "#### 70,000", "#### 18.", "#### $18", "#### 18 dollars", "#### 12 then #### 18", "####18",
         "\\boxed{18}", "#### 18.00", "#### 18\n(This took 3 steps.)", "\\boxed{\\frac{36}{2}}", "", "#### ", "#### -3"]
MARKED = re.compile(r"#### (\-?[0-9\.\,]+)")


def marked(text, which):
    found = MARKED.findall(text)
    return found[which] if found else None


def flexible(text):
    found = re.findall(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", text)
    return [g for g in found[-1] if g][0].strip() if found else None


def clean(text):
    for pattern in [",", r"\$", r"(?s).*#### ", r"\.$"]:
        text = re.sub(pattern, "", text)
    return text.lower()


def tail(text):
    return text[-300:]


def verl_strict(text):
    number = marked(tail(text), -1)
    return None if number is None else number.replace(",", "").replace("$", "")


def verl_flexible(text):
    final = None
    for final in reversed(re.findall(r"(\-?[0-9\.\,]+)", tail(text))):
        if final not in ["", "."]:
            break
    return final


def openai(text):
    match = MARKED.search(text)
    return match.group(1).strip().replace(",", "") if match else None


def boxed(text):
    try:
        if "\\boxed " in text:
            return text.split("\\boxed ")[-1].split("$")[0]
        at = text.rfind("\\boxed")
        at = text.rfind("\\fbox") if at < 0 else at
        if at < 0:
            return None
        depth, end = 0, None
        for i in range(at, len(text)):
            depth += (text[i] == "{") - (text[i] == "}")
            if text[i] == "}" and depth == 0:
                end = i
                break
        if end is None:
            return None
        assert text[at:at + 7] == "\\boxed{"
        return text[at + 7:end]
    except AssertionError:
        return None


def strip_latex(s):
    for old, new in [("\n", ""), ("\\!", ""), ("\\\\", "\\"), ("tfrac", "frac"), ("dfrac", "frac"), ("\\left", ""),
                     ("\\right", ""), ("^{\\circ}", ""), ("^\\circ", ""), ("\\$", "")]:
        s = s.replace(old, new)
    if "\\text{ " in s:
        parts = s.split("\\text{ ")
        assert len(parts) == 2
        s = parts[0]
    for old, new in [("\\%", ""), (" .", " 0."), ("{.", "{0.")]:
        s = s.replace(old, new)
    if not s:
        return s
    if s[0] == ".":
        s = "0" + s
    sides = s.split("=")
    if len(sides) == 2 and len(sides[0]) <= 2:
        s = sides[1]
    parts = s.split("\\sqrt")
    s = parts[0] + "".join("\\sqrt" + (p if p[0] == "{" else "{" + p[0] + "}" + p[1:]) for p in parts[1:])
    s = s.replace(" ", "")
    parts, made, whole = s.split("\\frac"), "", True
    for p in parts[1:]:
        if p[0] == "{":
            made += "\\frac" + p
        elif len(p) < 2:
            whole = False
            break
        else:
            made += "\\frac{" + p[0] + "}" + (p[1] if p[1] == "{" else "{" + p[1] + "}") + p[2:]
    s = parts[0] + made if whole else s
    s = "\\frac{1}{2}" if s == "0.5" else s
    sides = s.split("/")
    if len(sides) == 2:
        a, b = int(sides[0]), int(sides[1])  # ValueError: is_equiv compares what was given
        if s == f"{a}/{b}":
            s = "\\frac{%d}{%d}" % (a, b)
    return s


def latex_equal(a, b):
    try:
        return strip_latex(a) == strip_latex(b)
    except Exception:
        return a == b


def number_of(answer):  # what verl and grade-school-math compare with
    match = MARKED.search(answer)
    return (match.group(1) if match else answer).replace(",", "")


READERS = {"strict": lambda t: marked(t, 0), "flexible": flexible, "openai": openai, "verl_strict": verl_strict,
           "verl_flexible": verl_flexible, "boxed": boxed}


def correct(name, text, answer):
    read = READERS[name](text)
    if read is None:
        return False
    if name in ("strict", "flexible"):
        return clean(read) == clean(answer)
    if name == "boxed":
        return latex_equal(read, number_of(answer) if MARKED.search(answer) else answer)
    return read == number_of(answer)


def sets(shared):
    """Named lists of (completion, answer)."""
    rows = [json.loads(line) for line in open(f"{shared}/data/gsm8k/example_model_solutions.jsonl")]
    answers = [json.loads(line)["answer"] for line in open(f"{shared}/data/gsm8k/test.jsonl")]
    yield "table", [(t, a) for t in TABLE for a in ["#### 18", "#### 70,000", "#### -3", "18"]]
    for model in ["6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification"]:
        texts = [row[model]["solution"] for row in rows]
        yield model, list(zip(texts, answers))
        yield model + " ####", [(t.replace("A: ", "#### "), a) for t, a in zip(texts, answers)]
        yield model + " boxed", [(re.sub(r"A: (.*)", r"\\boxed{\1}", t), a) for t, a in zip(texts, answers)]
    maths = [json.loads(line) for line in open(f"{shared}/data/math/math_oai_test.jsonl")]
    yield "math500", [(m["solution"], m["answer"]) for m in maths]
    yield "math500 shifted", [(m["solution"], n["answer"]) for m, n in zip(maths, maths[1:] + maths[:1])]


PIECES = ["\\frac", "\\sqrt", "\\boxed", "\\boxed{", "\\fbox{", "\\text{ ", "\\left", "{", "}", "{", "}", "1", "2", "0", ".", "-", "/",
          "=", " ", "x", "k = ", "0.5", "\\dfrac12", "$", "#### ", ",", "\n", "\u03c0", "\\%", "_", "tfrac", "\\\\"]


def random_set():
    """Awkward texts, boxed and not, against answers that are often the same."""
    draw = random.Random(5)

    def text(most):
        return "".join(draw.choice(PIECES) for _ in range(draw.randrange(most)))
    rows = []
    for _ in range(20000):
        answer = text(8)
        inside = draw.choice([answer, answer.replace("\\dfrac12", "1/2"), answer.replace(" ", ""), text(8)])
        rows.append((text(6) + draw.choice(["\\boxed{%s}", "\\boxed %s", "#### %s", "%s"]) % inside + text(4), answer))
    return [(c, a) for c, a in rows if a]


def main():
    shared, program = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None
    for label, rows in list(sets(shared)) + ([("random", random_set())] if program else []):
        told = None
        if program:
            with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
                for completion, answer in rows:
                    file.write(json.dumps({"completion": completion, "answer": answer}) + "\n")
                file.flush()
                out = subprocess.run([program, "-o", "jsonl", "extract", "--file", file.name], check=True,
                                     capture_output=True, text=True).stdout
            told = [json.loads(line) for line in out.splitlines()]
            told = {(t["line"], t["extractor"]): (t["extracted"], t["correct"]) for t in told}
        for name, reader in READERS.items():
            digest, n = hashlib.sha256(), 0
            for line, (completion, answer) in enumerate(rows, 1):
                read, right = reader(completion), correct(name, completion, answer)
                n += right
                digest.update(f"{'-' if read is None else '=' + read}\n{int(right)}\n".encode())
                if told is not None and told[line, name] != (read, int(right)):
                    sys.exit(f"{label} row {line} {name}: {told[line, name]}, expected {(read, int(right))}")
            print(f'    {{"{label}", "{name}", {len(rows)}, {n}, "{digest.hexdigest()[:16]}"}},')


if __name__ == "__main__":
    main()
