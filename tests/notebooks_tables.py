"""pandas reads the exported tables with the types that they have in results.db."""
import sys
import warnings

import pandas as pd

warnings.simplefilter("error")
csv, jsonl = sys.argv[1:]
read = {name: pd.read_csv(f"{csv}/{name}.csv") for name in
        "runs params metrics evaluations completions events surfaces points marks slices hessians".split()}
lines = {name: pd.read_json(f"{jsonl}/{name}.jsonl", lines=True) for name in read}
for name in read:
    assert list(read[name]) == list(lines[name]) and len(read[name]) == len(lines[name]), name
    assert len(read[name]) > 0, name

kinds = {"i": "integers", "f": "reals", "O": "texts"}
for table, types in {
    "runs": dict(run_id="O", state="O", budget="i", lr="f", seed="i", objective="f", reason="O"),
    "metrics": dict(run_id="O", step="i", reward="f", grad_norm="f"),
    "evaluations": dict(step="i", task="O", n="i", value="f", p_value="f", base_value="f"),
    "completions": dict(text="O", prompt_row="i", advantage="f", n_tokens="i"),
    "points": dict(metric="O", i="i", j="i", x="f", y="f", value="f"),
}.items():
    for column, kind in types.items():
        found = read[table][column].dtype.kind
        assert found == kind, f"{table}.{column}: {kinds.get(found, found)}, expected {kinds[kind]}"

runs, points = read["runs"], read["points"]
assert runs.state.value_counts().to_dict() == {"done": 8, "failed": 1}
assert runs[runs.state == "failed"].objective.isna().all()
assert points[points.metric == "loss"].value.isna().sum() == 1
assert read["completions"].text.iloc[0] == 'a,"b"\r\n\ufffd|', repr(read["completions"].text.iloc[0])
assert read["metrics"].grad_norm.isna().sum() == 1  # not finite: NULL
