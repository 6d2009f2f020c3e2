"""Training and dev rows of digit-completion for questions that the test set does not ask.

usage: digit-completion-rows.py TEST.jsonl     (writes digit-completion-train.jsonl and -dev.jsonl here)

A question "a,b:max,n" asks for the n terms after a, b of the arithmetic sequence modulo max. There are
900 with one-digit a and n, b < max = 9, and verl's training and test rows together hold every one: 29 of
its test rows are training rows too. These are the ones that its test set leaves, shuffled, a fifth of them dev.
"""
import json
import os
import random
import sys

asked = {json.loads(line)["question"] for line in open(sys.argv[1])}
rows = []
for a in range(10):
    for b in range(9):
        for n in range(10):
            question = f"{a},{b}:9,{n}"
            terms = ",".join(str((b + (b - a) * i) % 9) for i in range(1, n + 1))
            if question not in asked:
                rows.append({"question": question, "answer": terms})
random.Random(1).shuffle(rows)
n_dev = len(rows) // 5
for name, part in (("dev", rows[:n_dev]), ("train", rows[n_dev:])):
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), f"digit-completion-{name}.jsonl")
    with open(path, "w") as file:
        for row in part:
            file.write(json.dumps(row) + "\n")
