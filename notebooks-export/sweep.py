# === title
# %% [markdown]
# # {{experiment}}: the runs
#
# Written by `tinylora export notebook`. Tables and figures are stored in this file; every cell reads
# `results.db` again and reproduces its own, so edit the SQL and run it (pandas and matplotlib are all it
# needs). The score is *{{score}}*, measured by evaluation on held-out rows.

# === setup
# %% [markdown]
# ## Setup
# %% common

# === setting
# %% [markdown]
# ## What was run
#
# One row a kind of run. *budget* counts the trained scalars; *steps* are updates of them.
# %% table
show(read("""
SELECT r.method, r.adapter, r.budget, count(*) AS runs, sum(r.state = 'done') AS done,
       sum(r.state = 'failed') AS failed, count(DISTINCT r.lr) AS rates,
       count(DISTINCT r.seed) AS seeds, max(r.steps) AS steps,
       group_concat(DISTINCT replace(r.model, rtrim(r.model, replace(r.model, '/', '')), '')) AS model
FROM experiment_run m JOIN run r USING (run_id)
WHERE m.experiment = :experiment
GROUP BY r.method, r.adapter, r.budget
"""))
# %% [markdown]
# What the runs differ in. All other settings are the same for every run; they stand at the end.
# %% table
show(read("""
WITH setting AS (
    SELECT DISTINCT p.key, p.value FROM experiment_run m JOIN param p USING (run_id)
    WHERE m.experiment = :experiment ORDER BY p.key, json_extract(p.value, '$')
)
SELECT key AS setting, count(*) AS "values", group_concat(trim(value, '"'), ', ') AS list
FROM setting GROUP BY key HAVING count(*) > 1
"""))
# %% [markdown]
# The bytes that went in, by their SHA-256: the model's weights, its tokenizer, and the data.
# %% table
show(read("""
SELECT j.key AS what, j.value AS sha256, count(*) AS runs
FROM experiment_run m JOIN run r USING (run_id), json_each(r.identity) j
WHERE m.experiment = :experiment AND substr(j.key, -7) = '_sha256' AND j.value <> ''
GROUP BY j.key, j.value
"""))
# %% [markdown]
# What was evaluated on: rows of a file, how answers were drawn, and the base model's own score there under every
# extractor. Further down a *task* goes by its number.
# %% table
show(read("""
WITH task AS (SELECT *, dense_rank() OVER (ORDER BY task) AS number FROM best_runs WHERE experiment = :experiment)
SELECT DISTINCT number AS task, task AS "rows and sampling", extractor AS score, n AS answers, value AS base,
       standard_error AS se
FROM task WHERE kind = 'base'
ORDER BY number, extractor <> :metric, extractor
"""))

# === best
# %% [markdown]
# ## Best runs
#
# The last evaluation of every run (of the best 100), the base model's row among them. *se* is the standard error
# of the score over rows; *gain* is the difference to the base model on the same rows and *p* its paired test (McNemar's
# exact test for one answer a row, a sign-flip test for several, a t test where scores are not 0 or 1).
# *p (Holm)* is adjusted for having tested all these runs: compare that one with your threshold.
#
# The first row was chosen because it is the first, on these very rows, so its score is somewhat too good. Choose
# the rate on held-out training rows, as here, and report the score of `tinylora eval --run` on test rows that
# had no part in the choice.
# %% table
show(read("""
WITH task AS (
    SELECT *, dense_rank() OVER (ORDER BY task) AS number FROM best_runs WHERE experiment = :experiment
), score AS (
    SELECT * FROM task WHERE extractor IS :metric
), step_down AS ( -- Holm (1979): the k-th smallest of m is multiplied by m - k + 1
    SELECT run_id, task, p_value, p_value * (1 + count(*) OVER (PARTITION BY task) -
           row_number() OVER (PARTITION BY task ORDER BY p_value, run_id)) AS p
    FROM score WHERE p_value IS NOT NULL
), holm AS (
    SELECT run_id, task, min(1.0, max(p) OVER (PARTITION BY task ORDER BY p_value, run_id
                                               ROWS UNBOUNDED PRECEDING)) AS p
    FROM step_down
)
SELECT s.place, CASE s.kind WHEN 'base' THEN 'base model' ELSE s.run_id END AS run, s.method,
       nullif(s.budget, 0) AS budget, s.lr, s.seed, nullif(s.step, 0) AS step, s.value AS score,
       s.standard_error AS se, s.gain, s.p_value AS p, h.p AS "p (Holm)", s.n, s.number AS task
FROM score s LEFT JOIN holm h ON h.run_id = s.run_id AND h.task = s.task
WHERE s.place <= 100 OR s.kind = 'base'
ORDER BY s.task, s.place, s.run_id
"""))

# === rates
# %% [markdown]
# ## Learning rate and score
#
# A point is the mean over the runs of a rate: its seeds. Its bar is the standard error over them where there are several, else that of the one evaluation over its rows;
# the band is the base model with its own. Seeds tell what a second training would give; rows tell what a
# second test set would give.
# %% table
rates = read("""
WITH task AS (SELECT *, dense_rank() OVER (ORDER BY task) AS number FROM best_runs WHERE experiment = :experiment)
SELECT number AS task, method, adapter, budget, point, lr, count(*) AS runs, avg(value) AS score,
       CASE WHEN count(*) > 1 THEN sqrt(max(0, sum(value * value) - sum(value) * avg(value)) /
                                       (count(*) * (count(*) - 1.0)))
            ELSE max(standard_error) END AS se, min(value) AS lowest, max(value) AS highest
FROM task JOIN run_point USING (run_id)
WHERE extractor IS :metric AND kind = 'run' AND value IS NOT NULL
GROUP BY number, method, adapter, budget, setting, lr
""")
show(rates)
# %% code
base = read("""
WITH task AS (SELECT *, dense_rank() OVER (ORDER BY task) AS number FROM best_runs WHERE experiment = :experiment)
SELECT DISTINCT number AS task, value, standard_error AS se FROM task WHERE extractor IS :metric AND kind = 'base'
""")
TASK = rates.task.mode()[0]  # the one that most of them were scored on
rewards = read("""
SELECT DISTINCT p.value FROM experiment_run m JOIN param p USING (run_id)
WHERE m.experiment = :experiment AND p.key = 'reward.name'
""").value.tolist()
METRIC = NAMES["metric"] or "reward"
if METRIC == "nll":
    SCALE, LABEL = 1, "loss (nats per token)"
elif METRIC == "reward" and rewards != ['"exact_match"']:
    SCALE, LABEL = 1, "mean reward"
else:
    SCALE, LABEL = 100, "accuracy (%)"


def base_band(ax):
    """The base model's score and one standard error to each side."""
    for row in base[base.task == TASK].itertuples():
        ax.axhline(SCALE * row.value, color="#606060", ls="--", lw=1, label="base model ± 1 SE")
        ax.axhspan(SCALE * (row.value - row.se), SCALE * (row.value + row.se), color="#606060", alpha=0.2, lw=0)
# %% figure lr-accuracy
fig, ax = plt.subplots()
base_band(ax)
kinds = rates[rates.task == TASK].groupby(["method", "budget", "point"])
for k, ((method, budget, point), of) in enumerate(kinds):
    ax.errorbar(of.lr, SCALE * of.score, SCALE * of.se, capsize=3, label=f"{method}, {point}", **style(k))
ax.set(xscale="log", xlabel="learning rate", ylabel=LABEL)
ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncol=3)
plt.show()

# === curves
# %% [markdown]
# ## Learning curves
#
# The mean reward of a step's sampled answers (of SFT: the loss): its mean over the runs of a rate, with one standard
# error to each side. Each step asks other prompts, so a curve is rough even where nothing is learned: look at its
# trend, and trust the table of best runs for scores.
# %% figure learning-curves
curves = read("""
SELECT r.method, r.adapter, r.budget, p.point, r.lr, r.run_id, k.step, k.value
FROM experiment_run m JOIN run r USING (run_id) JOIN run_point p USING (run_id) JOIN metric k USING (run_id)
WHERE m.experiment = :experiment AND k.value IS NOT NULL
      AND k.key = CASE r.method WHEN 'grpo' THEN 'reward' ELSE 'loss' END
ORDER BY r.method, r.adapter, r.budget, r.lr, r.seed, r.run_id, k.step
""")
for (method, budget, point), of in curves.groupby(["method", "budget", "point"]):
    fig, ax = plt.subplots()
    window = 1 if of.step.nunique() < 24 else of.step.nunique() // 12 | 1  # steps that are averaged
    rates_of = sorted(of.lr.unique())
    for k, lr in enumerate(rates_of):
        runs = of[of.lr == lr].pivot(index="step", columns="run_id", values="value")
        runs = runs.rolling(window, min_periods=1, center=True).mean()
        mean, se, color = runs.mean(axis=1), runs.sem(axis=1), plt.cm.viridis(0.9 * k / max(1, len(rates_of) - 1))
        named = k % (1 + len(rates_of) // 13) == 0  # of very many, some
        ax.plot(mean.index, mean, color=color, ls=DASHES[k % 4], label=f"rate {lr:g}" if named else None)
        ax.fill_between(mean.index, mean - se, mean + se, color=color, alpha=0.2, lw=0)
    ax.set(xlabel="step", ylabel="reward" if method == "grpo" else "loss (nats per token)",
           title=f"{method}, {point}; mean of {window} steps, ± 1 SE over runs")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncol=4)
    plt.show()

# === parameters
# %% [markdown]
# ## Trained scalars and score
#
# At every point of the plan space the rate that was best on the held-out training rows. Each had its own choice of
# rates, so a point that tried more of them had more luck to choose from.
# %% table
budgets = read("""
WITH task AS (
    SELECT b.*, r.objective, dense_rank() OVER (ORDER BY b.task) AS number
    FROM best_runs b JOIN run r USING (run_id) WHERE b.experiment = :experiment
), cell AS (
    SELECT number, method, adapter, budget, point, setting, lr, count(*) AS runs, avg(value) AS score, avg(objective) AS objective,
           CASE WHEN count(*) > 1 THEN sqrt(max(0, sum(value * value) - sum(value) * avg(value)) /
                                           (count(*) * (count(*) - 1.0)))
                ELSE max(standard_error) END AS se
    FROM task JOIN run_point USING (run_id) WHERE extractor IS :metric AND kind = 'run' AND value IS NOT NULL
    GROUP BY number, method, adapter, budget, setting, lr
), ranked AS (
    SELECT *, row_number() OVER (PARTITION BY number, method, setting
                                 ORDER BY coalesce(objective, score) DESC, lr) AS k
    FROM cell
)
SELECT number AS task, method, point, budget, lr AS "best rate", runs, score, se
FROM ranked WHERE k = 1 AND (SELECT count(DISTINCT budget) FROM cell) > 1
ORDER BY number, method, budget, point
""")
show(budgets)
# %% figure parameters-accuracy
fig, ax = plt.subplots()
base_band(ax)
kind = budgets.method + " " + budgets.point.str.split(" ").str[0]  # the method's name, without its plan
for k, (name, of) in enumerate(budgets[budgets.task == TASK].groupby(kind)):
    ax.errorbar(of.budget, SCALE * of.score, SCALE * of.se, capsize=3, label=name, **style(k))
ax.set(xscale="log", xlabel="trained scalars", ylabel=LABEL)
ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncol=3)
plt.show()

# === answers
# %% [markdown]
# ## Rewards and lengths of the answers
#
# All answers that were sampled in training, the first quarter of the steps against the last. A length at the limit
# means that answers were cut off, and a cut answer rarely has its result in it.
# %% code
answers = read("""
SELECT r.method, 4 * c.step > 3 * r.last_step AS late, c.reward, c.n_tokens, count(*) AS answers
FROM experiment_run m JOIN run r USING (run_id) JOIN completion c USING (run_id)
WHERE m.experiment = :experiment AND (4 * c.step <= r.last_step OR 4 * c.step > 3 * r.last_step)
GROUP BY r.method, late, c.reward, c.n_tokens
""")


def histogram(column, label):
    fig, ax = plt.subplots()
    bins = np.linspace(answers[column].min() - 0.5, answers[column].max() + 0.5, 41)
    if column == "reward":
        bins = np.linspace(answers[column].min(), max(answers[column].max(), answers[column].min() + 1), 21)
    for k, (name, of) in enumerate([("first quarter of the steps", answers[answers.late == 0]),
                                    ("last quarter of the steps", answers[answers.late == 1])]):
        of = of.dropna(subset=[column])
        ax.hist(of[column], bins, weights=of.answers / of.answers.sum(), histtype="step" if k else "bar",
                color=COLORS[1] if k else "#b8d4e8", lw=1.6, label=name)
    ax.set(xlabel=label, ylabel="share of answers")
    ax.legend()
    plt.show()
# %% figure rewards
histogram("reward", "reward")
# %% figure lengths
histogram("n_tokens", "length of the answer (tokens)")

# === health
# %% [markdown]
# ## Was the training sound?
#
# - *dead groups* (`frac_reward_zero_std`): the share of prompts whose answers all had the same reward. They teach
#   nothing, and most of the work went into them where it is near 1.
# - *clip ratio* (`clip_ratio/region_mean`) is 0 with one update a batch: the answers were drawn by the very
#   weights that are updated, so every ratio is 1. That is no fault.
# - *mismatch* (`sampling/sampling_logp_difference/max`): how far the sampler's log-probabilities were from the
#   trainer's. Here both are one engine: it must be 0.
# - *cut off* (`completions/clipped_ratio`): the share of answers that ran into the limit of tokens.
# %% table
show(read("""
SELECT r.run_id AS run, r.method, r.budget, r.lr, r.seed, r.last_step || ' of ' || r.steps AS step,
       avg(k.value) FILTER (WHERE k.key = 'frac_reward_zero_std') AS "dead groups",
       max(k.value) FILTER (WHERE k.key = 'clip_ratio/region_mean') AS "clip ratio",
       max(k.value) FILTER (WHERE k.key = 'sampling/sampling_logp_difference/max') AS mismatch,
       avg(k.value) FILTER (WHERE k.key = 'completions/clipped_ratio') AS "cut off",
       max(k.value) FILTER (WHERE k.key = 'entropy' AND k.step = 1) AS "entropy at first",
       max(k.value) FILTER (WHERE k.key = 'entropy' AND k.step = r.last_step) AS "and at last",
       max(k.value) FILTER (WHERE k.key = 'grad_norm') AS "largest gradient"
FROM experiment_run m JOIN run r USING (run_id) JOIN metric k USING (run_id)
WHERE m.experiment = :experiment
GROUP BY r.run_id
ORDER BY r.method, r.budget, r.lr, r.seed, r.run_id LIMIT 100
"""))

# === failures
# %% [markdown]
# ## What did not end well
# %% table
show(read("""
SELECT r.run_id AS run, r.method, r.budget, r.lr, r.seed, r.state, r.last_step || ' of ' || r.steps AS step,
       r.reason
FROM experiment_run m JOIN run r USING (run_id)
WHERE m.experiment = :experiment AND r.state <> 'done'
ORDER BY r.state, r.run_id LIMIT 100
"""))
# %% [markdown]
# ## What happened on the way
# %% table
show(read("""
SELECT e.kind AS event, count(*) AS times, count(DISTINCT e.run_id) AS runs, min(e.step) AS "first step",
       max(e.step) AS "last step", min(e.message) AS example
FROM experiment_run m JOIN event e USING (run_id)
WHERE m.experiment = :experiment
GROUP BY e.kind
ORDER BY e.kind
"""))

# === conclusions
# %% [markdown]
# ## What may not be concluded
#
# - **That the best run is that good.** It is the luckiest of all that were tried. Its score on rows that had no part
#   in the choice is the one to report.
# - **That two rates differ** because their points do: look at whether the bars part, and count how many pairs you
#   looked at. The *p* of the table compares each run with the base model, not runs with each other.
# - **That a difference would hold for another seed** where there was one seed. Its bar is about rows alone.
# - **That the model learned to reason.** A higher score under one extractor can be a habit of format: see the other
#   extractors in `tinylora best --metric all`.
# - **Anything about another model, other rows, another template**: they are part of what was measured.

# === settings
# %% [markdown]
# ## All settings
# %% table
show(read("""
WITH setting AS (
    SELECT DISTINCT p.key,
           CASE WHEN p.key IN ('model', 'data.train', 'data.dev', 'data.eval')
                THEN replace(p.value, rtrim(p.value, replace(p.value, '/', '')), '') ELSE p.value END AS value
    FROM experiment_run m JOIN param p USING (run_id)
    WHERE m.experiment = :experiment ORDER BY p.key, json_extract(p.value, '$')
)
SELECT key AS setting, group_concat(trim(value, '"'), ', ') AS value FROM setting GROUP BY key
"""))
