-- results.db, schema version 3: the whole of it. One process writes (results/store.h says how).
-- Executed to make a file, and to complete an older one after schema_2.sql and so on made room: hence IF NOT EXISTS.
-- Times are seconds since 1970 (REAL). NULL in a REAL column of numbers: not finite, and an event says what it was.
-- BLOBs of numbers are little-endian arrays: ids int32, logprobs float64.
PRAGMA application_id = 1953264177; -- 'tlr1'
PRAGMA user_version = 4;

-- A named set of runs with its frozen config.
CREATE TABLE IF NOT EXISTS experiment (
    name       TEXT NOT NULL PRIMARY KEY,
    config     TEXT NOT NULL, -- JSON, of the first time
    created_at REAL NOT NULL
) STRICT;

-- One cell. run_id is the start of the SHA-256 of `identity`: what is computed, so nothing is computed twice.
-- kind 'base': the model without adapter, the row that every table has.
CREATE TABLE IF NOT EXISTS run (
    run_id       TEXT NOT NULL PRIMARY KEY,
    kind         TEXT NOT NULL CHECK (kind IN ('run', 'base')),
    experiment   TEXT REFERENCES experiment(name), -- where it was first asked for
    identity     TEXT NOT NULL, -- canonical JSON
    config       TEXT NOT NULL, -- resolved, JSON
    model        TEXT NOT NULL,
    method       TEXT NOT NULL,
    adapter      TEXT NOT NULL,
    budget       INTEGER NOT NULL, -- trained scalars
    lr           REAL,
    seed         INTEGER,
    steps        INTEGER NOT NULL, -- planned
    last_step    INTEGER NOT NULL DEFAULT -1, -- committed; -1: none
    state        TEXT NOT NULL CHECK (state IN ('waiting', 'running', 'done', 'failed', 'cancelled')),
    reason       TEXT, -- why it failed or was cancelled
    objective    REAL,
    objective_se REAL, -- standard error
    created_at   REAL NOT NULL,
    started_at   REAL,
    ended_at     REAL
) STRICT;

-- Which experiments asked for a run: two may share one.
CREATE TABLE IF NOT EXISTS experiment_run (
    experiment TEXT NOT NULL REFERENCES experiment(name),
    run_id     TEXT NOT NULL REFERENCES run(run_id),
    PRIMARY KEY (experiment, run_id)
) STRICT, WITHOUT ROWID;

-- One process that worked on a run.
CREATE TABLE IF NOT EXISTS attempt (
    run_id       TEXT NOT NULL REFERENCES run(run_id),
    n            INTEGER NOT NULL,
    host         TEXT NOT NULL,
    pid          INTEGER NOT NULL,
    boot_id      TEXT NOT NULL,
    rank         INTEGER NOT NULL DEFAULT 0,
    environment  TEXT NOT NULL, -- JSON: kernels, threads, versions
    from_step    INTEGER NOT NULL, -- last committed step when it began
    to_step      INTEGER NOT NULL, -- last step it committed
    started_at   REAL NOT NULL,
    heartbeat_at REAL NOT NULL,
    ended_at     REAL,
    how          TEXT, -- how it ended: done, stopped, failed, lost
    PRIMARY KEY (run_id, n)
) STRICT, WITHOUT ROWID;

-- One resolved setting of a run.
CREATE TABLE IF NOT EXISTS param (
    run_id TEXT NOT NULL REFERENCES run(run_id),
    key    TEXT NOT NULL,
    value  TEXT NOT NULL, -- JSON
    PRIMARY KEY (run_id, key)
) STRICT, WITHOUT ROWID;

-- One number.
CREATE TABLE IF NOT EXISTS metric (
    run_id TEXT NOT NULL REFERENCES run(run_id),
    step   INTEGER NOT NULL,
    key    TEXT NOT NULL,
    value  REAL,
    PRIMARY KEY (run_id, step, key)
) STRICT, WITHOUT ROWID;

-- The whole state after a step.
CREATE TABLE IF NOT EXISTS checkpoint (
    run_id     TEXT NOT NULL REFERENCES run(run_id),
    step       INTEGER NOT NULL,
    n_bytes    INTEGER NOT NULL,
    sha256     TEXT NOT NULL,
    created_at REAL NOT NULL,
    bytes      BLOB NOT NULL,
    PRIMARY KEY (run_id, step)
) STRICT;

-- One sampled answer.
CREATE TABLE IF NOT EXISTS completion (
    run_id      TEXT NOT NULL REFERENCES run(run_id),
    step        INTEGER NOT NULL,
    prompt      INTEGER NOT NULL, -- place in the step
    sample      INTEGER NOT NULL, -- place in the group
    prompt_row  INTEGER NOT NULL, -- row of the data file, from 0
    prompt_text TEXT NOT NULL,
    text        TEXT NOT NULL, -- bytes as decoded: may be broken UTF-8
    reward      REAL,
    advantage   REAL,
    extracted   TEXT, -- JSON: what each extractor read
    finish      TEXT NOT NULL, -- stop, length
    n_tokens    INTEGER NOT NULL,
    ids         BLOB NOT NULL,
    logprobs    BLOB NOT NULL,
    PRIMARY KEY (run_id, step, prompt, sample)
) STRICT;

-- A score with its standard error.
CREATE TABLE IF NOT EXISTS evaluation (
    evaluation_id  INTEGER PRIMARY KEY,
    run_id         TEXT NOT NULL REFERENCES run(run_id),
    step           INTEGER NOT NULL,
    task           TEXT NOT NULL,
    extractor      TEXT NOT NULL,
    n              INTEGER NOT NULL,
    value          REAL,
    standard_error REAL,
    base_run_id    TEXT REFERENCES run(run_id), -- the base's row it was compared with
    base_value     REAL,
    p_value        REAL, -- paired, against the base
    detail         TEXT, -- JSON
    created_at     REAL NOT NULL,
    UNIQUE (run_id, step, task, extractor)
) STRICT;

-- What an evaluation sampled, once; what each extractor made of it. The view eval_sample has them side by side. An
-- evaluation that was cut off has its answers here, a piece of rows at a time, and goes on after them.
CREATE TABLE IF NOT EXISTS eval_completion (
    run_id   TEXT NOT NULL REFERENCES run(run_id),
    step     INTEGER NOT NULL,
    task     TEXT NOT NULL,
    row      INTEGER NOT NULL, -- of the data file, from 0
    sample   INTEGER NOT NULL,
    text     TEXT NOT NULL,
    answer   TEXT NOT NULL, -- reference
    n_tokens INTEGER NOT NULL,
    finish   TEXT,
    PRIMARY KEY (run_id, step, task, row, sample)
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS eval_verdict (
    evaluation_id INTEGER NOT NULL REFERENCES evaluation(evaluation_id) ON DELETE CASCADE,
    row           INTEGER NOT NULL,
    sample        INTEGER NOT NULL,
    extracted     TEXT,
    correct       INTEGER NOT NULL CHECK (correct IN (0, 1)),
    score         REAL, -- under 'reward' and 'nll', which are no verdicts; 0 or 1 elsewhere
    PRIMARY KEY (evaluation_id, row, sample)
) STRICT, WITHOUT ROWID;

-- A scan over a plane of adapters, v = origin + x * direction_x + y * direction_y: nx rows of ny points.
CREATE TABLE IF NOT EXISTS surface (
    surface_id   TEXT NOT NULL PRIMARY KEY, -- start of the SHA-256 of identity
    experiment   TEXT REFERENCES experiment(name),
    identity     TEXT NOT NULL, -- canonical JSON
    config       TEXT NOT NULL, -- resolved, JSON
    model        TEXT NOT NULL,
    run_id       TEXT REFERENCES run(run_id), -- whose parameters the plane goes through; NULL: v is (x, y)
    n_parameters INTEGER NOT NULL,
    plane        BLOB NOT NULL, -- origin, direction_x, direction_y: (3, n_parameters) float64
    metrics      TEXT NOT NULL, -- JSON list: what is measured at each point; the first one is the surface's own
    x_label      TEXT NOT NULL,
    y_label      TEXT NOT NULL,
    nx           INTEGER NOT NULL CHECK (nx > 0),
    ny           INTEGER NOT NULL CHECK (ny > 0),
    x_min        REAL NOT NULL,
    x_max        REAL NOT NULL,
    y_min        REAL NOT NULL,
    y_max        REAL NOT NULL,
    state        TEXT NOT NULL CHECK (state IN ('waiting', 'running', 'done', 'failed', 'cancelled')),
    reason       TEXT,
    created_at   REAL NOT NULL,
    ended_at     REAL
) STRICT;

-- A task: the points (i, 0..ny-1), committed in one transaction. host to heartbeat_at: the lease.
CREATE TABLE IF NOT EXISTS surface_row (
    surface_id   TEXT NOT NULL REFERENCES surface(surface_id),
    i            INTEGER NOT NULL,
    state        TEXT NOT NULL CHECK (state IN ('waiting', 'running', 'done', 'failed')),
    previewed    INTEGER NOT NULL DEFAULT 0 CHECK (previewed IN (0, 1)),
    lease        INTEGER NOT NULL DEFAULT 0, -- how often it was claimed
    host         TEXT,
    pid          INTEGER,
    boot_id      TEXT,
    born         INTEGER, -- start of the process in clock ticks since boot: tells it from a later one of its pid
    started_at   REAL,
    heartbeat_at REAL,
    ended_at     REAL,
    PRIMARY KEY (surface_id, i)
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS surface_point (
    surface_id TEXT NOT NULL,
    i          INTEGER NOT NULL,
    j          INTEGER NOT NULL,
    metric     TEXT NOT NULL,
    x          REAL NOT NULL,
    y          REAL NOT NULL,
    value      REAL,
    PRIMARY KEY (surface_id, i, j, metric),
    FOREIGN KEY (surface_id, i) REFERENCES surface_row(surface_id, i)
) STRICT, WITHOUT ROWID;

-- Points of a coarse lattice, computed before the rows so that there is a picture early; the same values as
-- surface_point will have.
CREATE TABLE IF NOT EXISTS surface_preview (
    surface_id TEXT NOT NULL,
    i          INTEGER NOT NULL,
    j          INTEGER NOT NULL,
    metric     TEXT NOT NULL,
    x          REAL NOT NULL,
    y          REAL NOT NULL,
    value      REAL,
    PRIMARY KEY (surface_id, i, j, metric),
    FOREIGN KEY (surface_id, i) REFERENCES surface_row(surface_id, i)
) STRICT, WITHOUT ROWID;

-- Places worth naming. kind 'base': the model without adapter; 'run': a stored run's parameters; 'best': the best
-- point of the grid; 'minimum': found from there by a minimiser; 'path': a run's checkpoints, name its run_id,
-- place its step. distance: from the plane, in units of v. value NULL: not known; metric '' where there is none.
CREATE TABLE IF NOT EXISTS surface_mark (
    surface_id TEXT NOT NULL REFERENCES surface(surface_id),
    kind       TEXT NOT NULL CHECK (kind IN ('base', 'run', 'best', 'minimum', 'path')),
    name       TEXT NOT NULL,
    place      INTEGER NOT NULL,
    metric     TEXT NOT NULL,
    x          REAL NOT NULL,
    y          REAL NOT NULL,
    distance   REAL NOT NULL,
    value      REAL,
    PRIMARY KEY (surface_id, kind, name, place, metric)
) STRICT, WITHOUT ROWID;

-- The surface along a line through the minimum: name 'x', 'y', 'eigenvector 1', ...; t in units of v. value NULL:
-- not known.
CREATE TABLE IF NOT EXISTS surface_slice (
    surface_id TEXT NOT NULL REFERENCES surface(surface_id),
    name       TEXT NOT NULL,
    place      INTEGER NOT NULL,
    metric     TEXT NOT NULL,
    t          REAL NOT NULL,
    x          REAL NOT NULL,
    y          REAL NOT NULL,
    value      REAL,
    PRIMARY KEY (surface_id, name, place, metric)
) STRICT, WITHOUT ROWID;

-- Eigenpairs of the Hessian of the loss by v: at 'base' or 'minimum', k = 0 the largest eigenvalue.
-- The matrix is sum_k eigenvalue_k * eigenvector_k * eigenvector_k^T.
CREATE TABLE IF NOT EXISTS surface_hessian (
    surface_id  TEXT NOT NULL REFERENCES surface(surface_id),
    place       TEXT NOT NULL CHECK (place IN ('base', 'minimum')),
    k           INTEGER NOT NULL,
    eigenvalue  REAL,
    eigenvector BLOB NOT NULL, -- (n_parameters) float64
    PRIMARY KEY (surface_id, place, k)
) STRICT, WITHOUT ROWID;

-- What the search for the minimum and the differences of a Hessian measured, kept so that one that was stopped goes on.
-- search: 'minimum', 'curvature base', 'curvature minimum'; place: in the order of measuring; part 0: the loss, k >= 1: its
-- slope along the plane's k-th direction or, of a Hessian, by scalar k of v. x, y NULL: off the plane. value NULL: not known.
CREATE TABLE IF NOT EXISTS surface_search (
    surface_id TEXT NOT NULL REFERENCES surface(surface_id),
    search     TEXT NOT NULL,
    place      INTEGER NOT NULL,
    part       INTEGER NOT NULL,
    x          REAL,
    y          REAL,
    value      REAL,
    PRIMARY KEY (surface_id, search, place, part)
) STRICT, WITHOUT ROWID;

-- A file written, with its hash.
CREATE TABLE IF NOT EXISTS artifact (
    artifact_id INTEGER PRIMARY KEY,
    run_id      TEXT REFERENCES run(run_id),
    surface_id  TEXT REFERENCES surface(surface_id),
    kind        TEXT NOT NULL, -- adapter, figure, notebook, ...
    path        TEXT NOT NULL,
    n_bytes     INTEGER NOT NULL,
    sha256      TEXT NOT NULL,
    created_at  REAL NOT NULL
) STRICT;

-- Something worth telling.
CREATE TABLE IF NOT EXISTS event (
    event_id   INTEGER PRIMARY KEY,
    run_id     TEXT REFERENCES run(run_id),
    step       INTEGER,
    kind       TEXT NOT NULL,
    message    TEXT NOT NULL,
    at         REAL NOT NULL,
    surface_id TEXT REFERENCES surface(surface_id)
) STRICT;
CREATE INDEX IF NOT EXISTS event_of_run ON event(run_id, step);
CREATE INDEX IF NOT EXISTS event_of_surface ON event(surface_id) WHERE surface_id IS NOT NULL;

-- `ls`
CREATE VIEW IF NOT EXISTS run_list AS
SELECT m.experiment, r.run_id, r.state, r.method, r.adapter, r.budget, r.lr, r.seed,
       r.last_step AS step, r.steps, r.objective, r.objective_se, r.model, r.reason,
       datetime((SELECT max(a.heartbeat_at) FROM attempt a WHERE a.run_id = r.run_id), 'unixepoch') AS last_seen
FROM experiment_run m JOIN run r USING (run_id)
ORDER BY m.experiment, r.method, r.adapter, r.budget, r.lr, r.seed;

-- `best`: the last evaluation of every run under every task and extractor, the base model's row among them.
-- Runs without evaluation stand under task NULL with their objective. Ranks count down, but for extractor 'nll'.
-- p_holm: the p-values of an experiment's runs under one task and extractor are tests made together (Holm 1979);
-- verdict: by p_holm at 0.05.
CREATE VIEW IF NOT EXISTS best_runs AS
WITH final AS (
    SELECT e.* FROM evaluation e
    WHERE e.step = (SELECT max(l.step) FROM evaluation l
                    WHERE l.run_id = e.run_id AND l.task = e.task AND l.extractor = e.extractor)
), score AS (
    SELECT m.experiment, e.task, e.extractor, r.kind, r.run_id, r.method, r.adapter, r.budget, r.lr, r.seed,
           r.state, e.step, e.n, e.value, e.standard_error, e.base_value, e.value - e.base_value AS gain, e.p_value
    FROM experiment_run m JOIN run r USING (run_id) JOIN final e USING (run_id)
    UNION
    SELECT m.experiment, b.task, b.extractor, r.kind, r.run_id, r.method, r.adapter, r.budget, r.lr, r.seed,
           r.state, b.step, b.n, b.value, b.standard_error, NULL, NULL, NULL
    FROM experiment_run m JOIN final e USING (run_id)
    JOIN final b ON b.run_id = e.base_run_id AND b.task = e.task AND b.extractor = e.extractor
    JOIN run r ON r.run_id = b.run_id
    UNION ALL
    SELECT m.experiment, NULL, NULL, r.kind, r.run_id, r.method, r.adapter, r.budget, r.lr, r.seed,
           r.state, r.last_step, NULL, r.objective, r.objective_se, NULL, NULL, NULL
    FROM experiment_run m JOIN run r USING (run_id)
    WHERE r.objective IS NOT NULL AND NOT EXISTS (SELECT 1 FROM evaluation e WHERE e.run_id = r.run_id)
), tested AS (
    SELECT *, count(p_value) OVER (PARTITION BY experiment, task, extractor) AS tests,
           row_number() OVER (PARTITION BY experiment, task, extractor ORDER BY p_value IS NULL, p_value) AS test
    FROM score
), adjusted AS (
    SELECT *, CASE WHEN p_value IS NOT NULL
                   THEN max(min(1.0, (tests - test + 1) * p_value))
                        OVER (PARTITION BY experiment, task, extractor ORDER BY test)
              END AS p_holm
    FROM tested
)
SELECT experiment, task, extractor,
       rank() OVER (PARTITION BY experiment, task, extractor
                    ORDER BY CASE extractor WHEN 'nll' THEN -value ELSE value END DESC NULLS LAST) AS place,
       kind, run_id, method, adapter, budget, lr, seed, state, step, n, value, standard_error,
       base_value, gain, p_value, p_holm,
       CASE WHEN kind = 'base' THEN 'base'
            WHEN base_value IS NULL THEN NULL
            WHEN coalesce(p_holm, 1) >= 0.05 THEN 'not distinguishable from base'
            WHEN (gain > 0) = (extractor <> 'nll') THEN 'better than base'
            ELSE 'worse than base'
       END AS verdict
FROM adjusted
ORDER BY experiment, task, extractor, place, run_id;

-- What is trained where: `setting` is every setting of a run but its learning rate, its seed and what changes no number;
-- `point` says the adapter's part for people; bytes: of the trained scalars as the model sees them.
CREATE VIEW IF NOT EXISTS run_point AS
WITH told AS (
    SELECT run_id, group_concat(key || '=' || value, ' ') AS setting,
           max(value) FILTER (WHERE key = 'adapter.u') AS u,
           max(value) FILTER (WHERE key = 'adapter.groups') AS groups,
           max(value) FILTER (WHERE key = 'adapter.rank') AS rank,
           max(trim(value, '"')) FILTER (WHERE key = 'adapter.tie') AS tie,
           max(trim(value, '"')) FILTER (WHERE key = 'adapter.dtype') AS dtype
    FROM (SELECT * FROM param WHERE key NOT IN ('experiment', 'seed', 'optimizer.lr', 'adapter.preset',
                                                'adapter.weight_tying', 'checkpoint.every', 'checkpoint.keep')
          ORDER BY run_id, key)
    GROUP BY run_id
)
SELECT r.run_id,
       r.adapter || CASE r.adapter
                    WHEN 'tinylora' THEN printf(' r=%s u=%s groups=%s %s', t.rank, t.u, t.groups,
                                                CASE t.tie WHEN 'none' THEN 'untied' ELSE t.tie END)
                    WHEN 'lora' THEN ' r=' || t.rank WHEN 'lora-xs' THEN ' r=' || t.rank ELSE '' END AS point,
       coalesce(t.setting, '') AS setting,
       r.budget * CASE WHEN r.adapter = 'tinylora' AND t.dtype IN ('bf16', 'f16') THEN 2 ELSE 4 END AS bytes
FROM run r LEFT JOIN told t USING (run_id)
WHERE r.kind = 'run';

-- Seeds taken together: one row a cell of the grid; seed_se is the standard error over seeds.
CREATE VIEW IF NOT EXISTS sweep_summary AS
WITH cell AS (
    SELECT m.experiment, r.method, r.adapter, r.budget, p.point, p.setting, r.lr, r.state, r.objective,
           avg(r.objective) OVER (PARTITION BY m.experiment, r.method, p.setting, r.lr) AS mean
    FROM experiment_run m JOIN run r USING (run_id) JOIN run_point p USING (run_id)
)
SELECT experiment, method, adapter, budget, lr, count(*) AS runs, sum(state = 'done') AS done,
       sum(state = 'failed') AS failed, avg(objective) AS objective,
       CASE WHEN count(objective) > 1
            THEN sqrt(sum((objective - mean) * (objective - mean)) /
                      (count(objective) * (count(objective) - 1.0)))
       END AS seed_se,
       min(objective) AS lowest, max(objective) AS highest, point, setting
FROM cell
GROUP BY experiment, method, setting, lr
ORDER BY experiment, method, adapter, budget, setting, lr;

-- The learning rate of each point, chosen by the mean objective (held-out rows) over its seeds, the smaller of equals;
-- and the runs at it. A rate of which a seed is missing or failed is not chosen while another is whole.
CREATE VIEW IF NOT EXISTS chosen_runs AS
WITH place AS (
    SELECT experiment, method, setting, point, lr,
           row_number() OVER (PARTITION BY experiment, method, setting
                              ORDER BY runs - done, objective DESC NULLS LAST, lr) AS place
    FROM sweep_summary WHERE done > 0
)
SELECT c.experiment, c.method, c.setting, c.point, c.lr, r.seed, r.run_id
FROM place c
JOIN experiment_run m ON m.experiment = c.experiment
JOIN run r ON r.run_id = m.run_id AND r.method = c.method AND r.lr = c.lr AND r.state = 'done'
JOIN run_point p ON p.run_id = r.run_id AND p.setting = c.setting
WHERE c.place = 1;

-- `budgets`: each point at its chosen rate, the seeds taken together: one row a point, task and extractor. se: over the
-- rows, of one run; seed_se: over the seeds. share: of the gain of full training, where that is more than twice its se.
-- test: the rows are data.eval's.
CREATE VIEW IF NOT EXISTS budget_table AS
WITH score AS (
    SELECT c.experiment, c.method, c.setting, c.point, c.lr, e.task, e.extractor, r.adapter, r.budget, p.bytes, e.value,
           e.standard_error, e.base_value, e.base_run_id, e.n,
           EXISTS (SELECT 1 FROM param k WHERE k.run_id = r.run_id AND k.key = 'data.eval' AND
                   '/' || trim(k.value, '"') LIKE '%/' || substr(e.task, 1, instr(e.task, '[') - 1)) AS test,
           avg(e.value) OVER (PARTITION BY c.experiment, c.method, c.setting, e.task, e.extractor) AS mean
    FROM chosen_runs c JOIN run r USING (run_id) JOIN run_point p USING (run_id)
    JOIN evaluation e ON e.run_id = c.run_id AND e.step = r.last_step
), together AS (
    SELECT experiment, task, extractor, max(test) AS test, method, adapter, point, setting, budget, bytes, lr,
           count(*) AS seeds, n, avg(value) AS value, sqrt(avg(standard_error * standard_error)) AS se,
           CASE WHEN count(*) > 1 THEN sqrt(sum((value - mean) * (value - mean)) / (count(*) * (count(*) - 1.0)))
           END AS seed_se,
           min(value) AS lowest, max(value) AS highest, avg(base_value) AS base_value, max(base_run_id) AS base_run_id,
           avg(value) - avg(base_value) AS gain
    FROM score
    GROUP BY experiment, task, extractor, method, setting
), full_gain AS (
    SELECT experiment, task, extractor, method, max(gain) AS gain FROM together WHERE adapter = 'full' AND gain > 2 * se
    GROUP BY experiment, task, extractor, method
)
SELECT t.experiment, t.task, t.extractor, t.test, t.method, t.adapter, t.point, t.budget, t.bytes, t.lr, t.seeds, t.n,
       t.value, t.se, t.seed_se, t.lowest, t.highest, t.base_value, t.gain,
       t.gain / f.gain AS share, t.base_run_id, t.setting
FROM together t LEFT JOIN full_gain f USING (experiment, task, extractor, method)
ORDER BY t.experiment, t.task, t.extractor, t.method, t.budget, t.adapter, t.setting;

-- Per-row answers of every evaluation under every extractor. pass@k ("strict@4") is of a row's samples together.
CREATE VIEW IF NOT EXISTS eval_sample AS
SELECT e.run_id, e.step, e.task, e.extractor, v.row, v.sample, v.extracted, v.correct, v.score, c.n_tokens,
       c.text, c.answer
FROM evaluation e JOIN eval_verdict v USING (evaluation_id)
LEFT JOIN eval_completion c ON c.run_id = e.run_id AND c.step = e.step AND c.task = e.task AND c.row = v.row
                               AND c.sample = v.sample AND e.extractor <> 'nll' AND e.extractor NOT LIKE '%@%';

-- The usual metrics side by side, one row a step.
CREATE VIEW IF NOT EXISTS learning_curve AS
SELECT r.run_id, r.method, r.budget, r.lr, r.seed, k.step,
       max(k.value) FILTER (WHERE k.key = 'reward') AS reward,
       max(k.value) FILTER (WHERE k.key = 'reward_std') AS reward_std,
       max(k.value) FILTER (WHERE k.key = 'loss') AS loss,
       max(k.value) FILTER (WHERE k.key = 'grad_norm') AS grad_norm,
       max(k.value) FILTER (WHERE k.key = 'learning_rate') AS learning_rate,
       max(k.value) FILTER (WHERE k.key = 'kl') AS kl,
       max(k.value) FILTER (WHERE k.key = 'entropy') AS entropy,
       max(k.value) FILTER (WHERE k.key = 'completions/mean_length') AS mean_length,
       max(k.value) FILTER (WHERE k.key = 'num_tokens') AS num_tokens,
       max(k.value) FILTER (WHERE k.key = 'step_time') AS step_time
FROM run r JOIN metric k USING (run_id)
GROUP BY r.run_id, k.step
ORDER BY r.run_id, k.step;

CREATE VIEW IF NOT EXISTS surface_grid AS
SELECT s.experiment, p.surface_id, p.metric, p.i, p.j, p.x, p.y, p.value
FROM surface s JOIN surface_point p USING (surface_id)
ORDER BY p.surface_id, p.metric, p.i, p.j;

-- What there is to draw of a surface so far: its points, and the preview where a row is not done.
CREATE VIEW IF NOT EXISTS surface_picture AS
SELECT surface_id, metric, i, j, x, y, value, 0 AS preview FROM surface_point
UNION ALL
SELECT p.surface_id, p.metric, p.i, p.j, p.x, p.y, p.value, 1
FROM surface_preview p JOIN surface_row r USING (surface_id, i) WHERE r.state <> 'done';

-- `ls --surfaces`. best: of the surface's own metric, the first one, so far. (json_each, for SQLite refuses JSON's
-- functions in the views of a schema that is not trusted.)
CREATE VIEW IF NOT EXISTS surface_list AS
WITH own AS (SELECT *, (SELECT value FROM json_each(metrics) WHERE key = 0) AS metric FROM surface)
SELECT s.experiment, s.surface_id, s.state, s.nx || ' x ' || s.ny AS grid,
       (SELECT count(*) FROM surface_row r WHERE r.surface_id = s.surface_id AND r.state = 'done') AS rows_done,
       s.nx AS rows, s.n_parameters AS budget, s.run_id, s.metrics, s.metric,
       b.value AS base_value, m.value AS best_value, m.x AS best_x, m.y AS best_y, s.model, s.reason,
       datetime((SELECT max(r.heartbeat_at) FROM surface_row r WHERE r.surface_id = s.surface_id), 'unixepoch')
           AS last_seen
FROM own s
LEFT JOIN surface_mark b ON b.surface_id = s.surface_id AND b.kind = 'base' AND b.metric = s.metric
LEFT JOIN surface_mark m ON m.surface_id = s.surface_id AND m.kind = 'best' AND m.metric = s.metric
ORDER BY s.experiment, s.created_at, s.surface_id;

-- `watch`: how far a run is. Seconds a step: of the last attempt that made steps. value: of the last step, best: so
-- far, both of the mean reward where the method has one, else of the loss. host to heartbeat_at: the last attempt.
CREATE VIEW IF NOT EXISTS run_progress AS
WITH pace AS (
    SELECT a.run_id, (a.heartbeat_at - a.started_at) / (a.to_step - max(a.from_step, 0)) AS seconds_per_step
    FROM attempt a
    WHERE a.n = (SELECT max(b.n) FROM attempt b WHERE b.run_id = a.run_id AND b.to_step > max(b.from_step, 0))
)
SELECT r.experiment, r.run_id, r.state, r.method, r.budget, r.lr, r.seed, r.last_step AS step, r.steps,
       p.seconds_per_step, (r.steps - max(r.last_step, 0)) * p.seconds_per_step AS seconds_left,
       iif(r.method = 'grpo', 'reward', 'loss') AS metric,
       (SELECT k.value FROM metric k WHERE k.run_id = r.run_id AND k.key = iif(r.method = 'grpo', 'reward', 'loss')
        ORDER BY k.step DESC LIMIT 1) AS value,
       iif(r.method = 'grpo', (SELECT max(k.value) FROM metric k WHERE k.run_id = r.run_id AND k.key = 'reward'),
           (SELECT min(k.value) FROM metric k WHERE k.run_id = r.run_id AND k.key = 'loss')) AS best,
       a.host, a.pid, a.boot_id, a.heartbeat_at, a.ended_at
FROM run r LEFT JOIN pace p USING (run_id)
LEFT JOIN attempt a ON a.run_id = r.run_id AND a.n = (SELECT max(b.n) FROM attempt b WHERE b.run_id = r.run_id)
WHERE r.kind = 'run'
ORDER BY r.experiment, r.created_at, r.run_id;

-- `watch`: how far a surface is. Seconds a row: mean of the rows done, by one process; before there is one, what the
-- previews promise.
CREATE VIEW IF NOT EXISTS surface_progress AS
SELECT l.experiment, l.surface_id, l.state, l.grid, l.rows_done, l.rows, r.rows_held, r.rows_previewed,
       coalesce(r.seconds_per_row,
                r.seconds_per_preview * s.ny * r.rows_previewed /
                (SELECT count(*) FROM surface_preview p WHERE p.surface_id = l.surface_id AND p.metric = l.metric))
           AS seconds_per_row,
       l.metric, l.base_value, l.best_value, l.best_x, l.best_y, r.heartbeat_at
FROM surface_list l JOIN surface s USING (surface_id)
JOIN (SELECT surface_id, sum(state = 'running') AS rows_held, sum(previewed) AS rows_previewed,
             avg(ended_at - started_at) FILTER (WHERE state = 'done') AS seconds_per_row,
             avg(ended_at - started_at) FILTER (WHERE state = 'waiting' AND previewed) AS seconds_per_preview,
             max(heartbeat_at) AS heartbeat_at
      FROM surface_row GROUP BY surface_id) r USING (surface_id);

-- The processes that worked on a surface, and how many rows each holds now.
CREATE VIEW IF NOT EXISTS surface_process AS
SELECT surface_id, host, pid, boot_id, born, sum(state = 'running') AS rows_held, sum(state = 'done') AS rows_done,
       max(heartbeat_at) AS heartbeat_at
FROM surface_row WHERE host IS NOT NULL
GROUP BY surface_id, host, pid, boot_id, born;

-- `show RUN`: all that is known of a run, as SELECT section, key, value FROM run_show WHERE run_id = ?
CREATE VIEW IF NOT EXISTS run_show AS
SELECT run_id, 1 AS part, 'run' AS section, 1 AS place, 'state' AS key, state AS value FROM run
UNION ALL SELECT run_id, 1, 'run', 2, 'reason', reason FROM run WHERE reason IS NOT NULL
UNION ALL SELECT run_id, 1, 'run', 3, 'experiment', experiment FROM experiment_run
UNION ALL SELECT run_id, 1, 'run', 4, 'model', model FROM run
UNION ALL SELECT run_id, 1, 'run', 5, 'method', method FROM run
UNION ALL SELECT run_id, 1, 'run', 6, 'adapter', adapter FROM run
UNION ALL SELECT run_id, 1, 'run', 7, 'budget', budget FROM run
UNION ALL SELECT run_id, 1, 'run', 8, 'lr', lr FROM run
UNION ALL SELECT run_id, 1, 'run', 9, 'seed', seed FROM run
UNION ALL SELECT run_id, 1, 'run', 10, 'step', last_step || ' of ' || steps FROM run
UNION ALL SELECT run_id, 1, 'run', 11, 'objective', objective FROM run WHERE objective IS NOT NULL
UNION ALL SELECT run_id, 1, 'run', 12, 'objective_se', objective_se FROM run WHERE objective_se IS NOT NULL
UNION ALL SELECT run_id, 1, 'run', 13, 'created', datetime(created_at, 'unixepoch') FROM run
UNION ALL SELECT run_id, 1, 'run', 14, 'ended', datetime(ended_at, 'unixepoch') FROM run WHERE ended_at IS NOT NULL
UNION ALL SELECT run_id, 2, 'evaluation', step, 'step ' || step || ' ' || extractor,
                 printf('%.4f +- %.4f', value, standard_error) ||
                 CASE WHEN base_value IS NULL THEN '' ELSE printf(', base %.4f', base_value) END ||
                 CASE WHEN p_value IS NULL THEN '' ELSE printf(', p %.2g', p_value) END ||
                 printf(' (n %d, %s)', n, task) FROM evaluation
UNION ALL SELECT k.run_id, 3, 'metric', 0, k.key, k.value FROM metric k JOIN run r USING (run_id)
          WHERE k.step = r.last_step
UNION ALL SELECT run_id, 4, 'param', 0, key, value FROM param
UNION ALL SELECT run_id, 5, 'attempt', n, n,
                 printf('%s on %s, pid %d, steps %d to %d, %s', coalesce(how, 'open'), host, pid, from_step, to_step,
                        datetime(started_at, 'unixepoch')) FROM attempt
UNION ALL SELECT run_id, 6, 'event', event_id, coalesce('step ' || step, ''), kind || ': ' || message FROM event
          WHERE run_id IS NOT NULL
ORDER BY 1, 2, 4, 5;

-- `show SURFACE`, in the same way.
CREATE VIEW IF NOT EXISTS surface_show AS
SELECT surface_id, 1 AS part, 'surface' AS section, 1 AS place, 'state' AS key, state AS value FROM surface
UNION ALL SELECT surface_id, 1, 'surface', 2, 'reason', reason FROM surface WHERE reason IS NOT NULL
UNION ALL SELECT surface_id, 1, 'surface', 3, 'experiment', experiment FROM surface
UNION ALL SELECT surface_id, 1, 'surface', 4, 'model', model FROM surface
UNION ALL SELECT surface_id, 1, 'surface', 5, 'run', run_id FROM surface WHERE run_id IS NOT NULL
UNION ALL SELECT surface_id, 1, 'surface', 6, 'budget', n_parameters FROM surface
UNION ALL SELECT surface_id, 1, 'surface', 7, 'grid', nx || ' x ' || ny FROM surface
UNION ALL SELECT surface_id, 1, 'surface', 8, 'x', printf('%s from %.10g to %.10g', x_label, x_min, x_max) FROM surface
UNION ALL SELECT surface_id, 1, 'surface', 9, 'y', printf('%s from %.10g to %.10g', y_label, y_min, y_max) FROM surface
UNION ALL SELECT surface_id, 1, 'surface', 10, 'metrics', (SELECT group_concat(value, ', ') FROM json_each(metrics))
          FROM surface
UNION ALL SELECT surface_id, 1, 'surface', 11, 'rows',
                 printf('%d of %d done, %d at work, %d waiting', sum(state = 'done'), count(*),
                        sum(state = 'running'), sum(state = 'waiting')) FROM surface_row GROUP BY surface_id
UNION ALL SELECT surface_id, 1, 'surface', 12, 'created', datetime(created_at, 'unixepoch') FROM surface
UNION ALL SELECT surface_id, 1, 'surface', 13, 'ended', datetime(ended_at, 'unixepoch') FROM surface
          WHERE ended_at IS NOT NULL
UNION ALL SELECT surface_id, 2, 'value', instr('base best minimum run', kind), kind || ' ' || metric,
                 printf('%.10g at (%.6g, %.6g)', value, x, y) ||
                 CASE WHEN distance > 1e-12 THEN printf(', %.3g off the plane', distance) ELSE '' END
          FROM surface_mark WHERE kind <> 'path' AND value IS NOT NULL
UNION ALL SELECT surface_id, 3, 'curvature', k + 1000 * (place = 'minimum'), place || ' eigenvalue ' || (k + 1), eigenvalue FROM surface_hessian
UNION ALL SELECT surface_id, 4, 'path', 0, name, printf('%d checkpoints, step %d to %d', count(DISTINCT place),
                 min(place), max(place)) FROM surface_mark WHERE kind = 'path' GROUP BY surface_id, name
UNION ALL SELECT surface_id, 5, 'process', pid, printf('%d on %s', pid, host),
                 printf('%d rows done, %d at work, last seen %s', rows_done, rows_held,
                        datetime(heartbeat_at, 'unixepoch')) FROM surface_process
UNION ALL SELECT surface_id, 6, 'event', event_id, '', kind || ': ' || message FROM event
          WHERE surface_id IS NOT NULL AND kind <> 'nonfinite'
UNION ALL SELECT surface_id, 6, 'event', min(event_id), count(*) || ' x', kind || ': ' || message FROM event
          WHERE surface_id IS NOT NULL AND kind = 'nonfinite' GROUP BY surface_id
UNION ALL SELECT surface_id, 7, 'artifact', artifact_id, kind, path FROM artifact WHERE surface_id IS NOT NULL
ORDER BY 1, 2, 4, 5;
