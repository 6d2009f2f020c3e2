#!/usr/bin/env python3
"""merge.py BUILD TARGET...: writes corpus/TARGET/grown-NN, so that `make test` replays what a long run
found: of BUILD/corpus/TARGET those that add most edges of code to the seeds, each time the one that
adds the most, of equals the smallest; at most 40, each adding two or more."""
import os
import subprocess
import sys
import tempfile

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "corpus")


def edges_of(binary, folder, scratch):
    """path -> the set of edges it reaches"""
    control = os.path.join(scratch, "control")
    empty = tempfile.mkdtemp(dir=scratch)
    subprocess.run([binary, "-merge=1", "-use_counters=0", "-merge_control_file=" + control, empty, folder],
                   check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    lines = open(control).read().splitlines()
    os.remove(control)
    paths = lines[2:2 + int(lines[0])]
    return {paths[int(number)]: set(edges) for kind, number, *edges in map(str.split, lines[2 + int(lines[0]):])
            if kind == "FT"}


def merge(build, target):
    binary, seeds = os.path.join(build, "fuzz_" + target), os.path.join(HERE, target)
    for name in os.listdir(seeds):
        if name.startswith("grown-"):
            os.remove(os.path.join(seeds, name))
    with tempfile.TemporaryDirectory() as scratch:
        reached = set().union(*edges_of(binary, seeds, scratch).values())
        grown = edges_of(binary, os.path.join(build, "corpus", target), scratch)
    sizes = {path: os.path.getsize(path) for path in grown}
    for number in range(1, 41):
        best = max(grown, key=lambda path: (len(grown[path] - reached), -sizes[path]))
        if len(grown[best] - reached) < 2:
            break
        reached |= grown[best]
        with open(best, "rb") as source, open(os.path.join(seeds, "grown-%02d" % number), "wb") as out:
            out.write(source.read())
    everything = set().union(*grown.values()) | reached
    print("%s: %d of %d edges" % (target, len(reached), len(everything)))


for name in sys.argv[2:]:
    merge(sys.argv[1], name)
