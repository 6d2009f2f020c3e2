# === title
# %% [markdown]
# # {{title}}
#
# Written by `tinylora export notebook --compare`. Tables and figures are stored in this file; every cell reads
# `results.db` again and reproduces its own. The score is *{{score}}*.

# === setup
# %% [markdown]
# ## Setup
# %% common

# === setting
# %% [markdown]
# ## What was run
# %% table
show(read("""
SELECT m.experiment, r.method, r.adapter, r.budget, count(*) AS runs, sum(r.state = 'done') AS done,
       sum(r.state = 'failed') AS failed, count(DISTINCT r.lr) AS rates, count(DISTINCT r.seed) AS seeds,
       max(r.steps) AS steps,
       group_concat(DISTINCT replace(r.model, rtrim(r.model, replace(r.model, '/', '')), '')) AS model
FROM experiment_run m JOIN run r USING (run_id)
WHERE m.experiment IN (SELECT value FROM json_each(:experiments))
GROUP BY m.experiment, r.method, r.adapter, r.budget
"""))
# %% [markdown]
# What they differ in. Whatever stands here can be the reason for a difference in the score; a comparison says most
# where this table is short.
# %% table
show(read("""
WITH setting AS (
    SELECT DISTINCT m.experiment, p.key,
           CASE WHEN p.key IN ('model', 'data.train', 'data.dev', 'data.eval')
                THEN replace(p.value, rtrim(p.value, replace(p.value, '/', '')), '') ELSE p.value END AS value
    FROM experiment_run m JOIN param p USING (run_id)
    WHERE m.experiment IN (SELECT value FROM json_each(:experiments)) AND p.key <> 'experiment'
    ORDER BY m.experiment, p.key, json_extract(p.value, '$')
), listed AS (
    SELECT experiment, key, group_concat(trim(value, '"'), ', ') AS list FROM setting GROUP BY experiment, key
)
SELECT key AS setting, experiment, list AS "values" FROM listed l
WHERE (SELECT count(DISTINCT o.list) FROM listed o WHERE o.key = l.key) > 1
   OR (SELECT count(*) FROM listed o WHERE o.key = l.key) < json_array_length(:experiments)
ORDER BY key, experiment
"""))
# %% [markdown]
# The bytes that went in, by their SHA-256. A hash that not every experiment has is a difference too.
# %% table
show(read("""
SELECT j.key AS what, substr(j.value, 1, 16) AS "sha256 begins", group_concat(DISTINCT m.experiment) AS experiments
FROM experiment_run m JOIN run r USING (run_id), json_each(r.identity) j
WHERE m.experiment IN (SELECT value FROM json_each(:experiments)) AND substr(j.key, -7) = '_sha256' AND j.value <> ''
GROUP BY j.key, j.value
ORDER BY j.key, j.value
"""))

# === best
# %% [markdown]
# ## The best run of each
#
# And the base model's rows. *tried* is the number of runs that the best one was chosen from: the more, the
# luckier it may be.
# %% table
best = read("""
WITH score AS (
    SELECT *, row_number() OVER (PARTITION BY experiment, task, kind ORDER BY place, run_id) AS k,
           count(*) OVER (PARTITION BY experiment, task, kind) AS tried
    FROM best_runs
    WHERE experiment IN (SELECT value FROM json_each(:experiments)) AND extractor IS :metric
)
SELECT experiment, CASE kind WHEN 'base' THEN 'base model' ELSE run_id END AS run, method,
       nullif(budget, 0) AS budget, lr, seed, value AS score, standard_error AS se, gain, p_value AS p, n,
       CASE kind WHEN 'run' THEN tried END AS tried, task
FROM score WHERE k = 1
ORDER BY task, experiment, kind DESC
""")
show(best)
# %% figure comparison
task = best[best.run != "base model"].task.mode()[0]
scale = 1 if NAMES["metric"] == "nll" or best.score.max() > 1 else 100
shown = best[best.task == task]
fig, ax = plt.subplots(figsize=(7, 1.5 + 0.45 * shown.experiment.nunique()))
for row in shown[shown.run == "base model"].drop_duplicates("score").itertuples():
    ax.axvline(scale * row.score, color="#606060", ls="--", lw=1, label="base model ± 1 SE")
    ax.axvspan(scale * (row.score - row.se), scale * (row.score + row.se), color="#606060", alpha=0.2, lw=0)
runs = shown[shown.run != "base model"]
for k, row in enumerate(runs.itertuples()):
    ax.errorbar(scale * row.score, k, xerr=1.96 * scale * row.se, fmt=MARKS[k % 7], color=COLORS[k % 7], capsize=4)
ax.set_yticks(range(len(runs)), [plain(name) for name in runs.experiment])
ax.set(xlabel=f"{NAMES['metric']}{' (%)' if scale == 100 else ''}, 95 % interval", ylim=(len(runs) - 0.5, -0.5))
ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.3))
plt.show()

# === pairs
# %% [markdown]
# ## Tested pair by pair, on the same rows
#
# The best runs answered the same rows, so each row is its own control: *difference* is the mean over rows of
# first minus second, *se* its standard error, *only\_first* the rows on which the first did better. *p* is the exact
# sign-flip test on rows (with one answer a row that is McNemar's test; Student's paired t test where scores are not 0
# or 1), *p (Holm)* adjusted for all pairs here. Overlapping intervals in the figure do not mean that there
# is no difference: this test is the sharper one.
#
# Both were chosen as the best of their experiment on these very rows, which favours the experiment with more
# runs. Test rows that had no part in the choice decide.
# %% table pairs
import math

pairs = read("""
WITH score AS (
    SELECT experiment, task, run_id, step, row_number() OVER (PARTITION BY experiment, task ORDER BY place, run_id) AS k
    FROM best_runs
    WHERE experiment IN (SELECT value FROM json_each(:experiments)) AND extractor = :metric AND kind = 'run'
), answer AS (
    SELECT s.experiment, s.task, v.row, sum(coalesce(v.score, v.correct)) AS score, count(*) AS samples,
           min(coalesce(v.score, v.correct) IN (0, 1)) AS verdict
    FROM score s JOIN evaluation e ON e.run_id = s.run_id AND e.step = s.step AND e.task = s.task
    JOIN eval_verdict v USING (evaluation_id)
    WHERE s.k = 1 AND e.extractor = :metric
    GROUP BY s.experiment, s.task, v.row
)
SELECT a.task, a.experiment AS first, b.experiment AS second, a.row, a.score - b.score AS difference, a.samples,
       min(a.verdict, b.verdict) AS verdict
FROM answer a JOIN answer b ON b.task = a.task AND b.row = a.row AND b.samples = a.samples
WHERE a.experiment < b.experiment
ORDER BY a.task, a.experiment, b.experiment, a.row
""")


def sign_flip(differences):
    """Share of all ways to flip signs with a sum at least as far from 0: the exact two-sided test."""
    steps = np.abs(differences[differences != 0]).round().astype(int)
    chance = np.ones(1)  # of each sum from -n to n
    for step in steps:
        chance = 0.5 * (np.pad(chance, (0, 2 * step)) + np.pad(chance, (2 * step, 0)))
    sums = np.arange(len(chance)) - len(chance) // 2
    return min(1.0, chance[np.abs(sums) >= abs(round(differences.sum()))].sum())


def student(differences):
    """Paired t test, two-sided: an incomplete beta function (Numerical Recipes, section 6.4)."""
    n, spread = len(differences), differences.std(ddof=1) if len(differences) > 1 else 0
    if spread == 0:
        return np.nan
    t = differences.mean() / spread * math.sqrt(n)
    return incomplete_beta((n - 1) / 2, 0.5, (n - 1) / (n - 1 + t * t))


def incomplete_beta(a, b, x):
    if x >= 1:
        return 1.0
    if x > (a + 1) / (a + b + 2):
        return 1 - incomplete_beta(b, a, 1 - x)
    front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    fraction = d
    for m in range(1, 200):
        for step in (m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
                     -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))):
            c, d = 1 + step / c, 1 / (1 + step * d)
            fraction *= c * d
    return math.exp(front) * fraction / a


def holm(p):
    """p-values adjusted for having made all these tests (Holm 1979)."""
    order = np.argsort(p, kind="stable")
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p)))))
    return adjusted


tested = []
for (of_task, first, second), rows in pairs.groupby(["task", "first", "second"]):
    d = (rows.difference / rows.samples).to_numpy()
    p = sign_flip(rows.difference.to_numpy()) if rows.verdict.min() == 1 else student(d)
    tested.append((of_task, first, second, len(rows), d.mean(), d.std(ddof=1) / np.sqrt(len(d)) if len(d) > 1 else None,
                   (d > 0).sum(), (d < 0).sum(), p))
tested = pd.DataFrame(tested, columns="task first second rows difference se only_first only_second p".split())
tested["p (Holm)"] = holm(tested.p.to_numpy())
show(tested)

# === rates
# %% [markdown]
# ## All runs of each
#
# Seeds taken together; a rate of one experiment is comparable with the same rate of another only where all else is
# the same.
# %% table
show(read("""
SELECT b.experiment, b.method, b.adapter, b.budget, b.lr, count(*) AS runs, avg(b.value) AS score,
       CASE WHEN count(*) > 1 THEN sqrt(max(0, sum(b.value * b.value) - sum(b.value) * avg(b.value)) /
                                       (count(*) * (count(*) - 1.0)))
            ELSE max(b.standard_error) END AS se, b.task
FROM best_runs b
WHERE b.experiment IN (SELECT value FROM json_each(:experiments)) AND b.extractor IS :metric AND b.kind = 'run'
      AND b.value IS NOT NULL
GROUP BY b.task, b.experiment, b.method, b.adapter, b.budget, b.lr
"""))

# === conclusions
# %% [markdown]
# ## What may not be concluded
#
# - **That the method of the better experiment is better.** Two best runs were compared, not two methods: another seed
#   can turn them round. Compare means over seeds where there are several.
# - **That there is no difference** where *p* is large: with n rows a difference below about two *se* cannot be seen.
# - **Anything** where the settings above differ in more than what you meant to vary.
