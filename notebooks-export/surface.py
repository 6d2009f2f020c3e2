# === title
# %% [markdown]
# # {{experiment}}: a surface
#
# Written by `tinylora export notebook`. Tables and figures are stored in this file; every cell reads
# `results.db` again and reproduces its own, so edit the SQL and run it (pandas and matplotlib are all it
# needs).
#
# The trained parameters v are moved over a plane, v(x, y) = origin + x direction\_x + y direction\_y, and the model is
# measured at every point of a grid on it, always on the same rows. Nothing is trained here: it is what training
# would have to walk through.

# === setup
# %% [markdown]
# ## Setup
# %% common

# === identity
# %% [markdown]
# ## What was measured
#
# Everything in this table is part of what the numbers mean. With two trained scalars the plane is all there is; with
# more of them it is a cut, and what lies beside it is not seen.
# %% table
show(read("""
WITH s AS (SELECT * FROM surface WHERE surface_id = :surface)
SELECT 'surface' AS what, surface_id AS value FROM s
UNION ALL SELECT 'model', replace(model, rtrim(model, replace(model, '/', '')), '') FROM s
UNION ALL SELECT 'trained scalars', CAST(n_parameters AS TEXT) FROM s
UNION ALL SELECT 'plane through', coalesce('run ' || run_id, 'v = (x, y) itself') FROM s
UNION ALL SELECT 'x', printf('%s from %g to %g, %d points', x_label, x_min, x_max, nx) FROM s
UNION ALL SELECT 'y', printf('%s from %g to %g, %d points', y_label, y_min, y_max, ny) FROM s
UNION ALL SELECT 'measured', replace(trim(metrics, '[]'), '"', '') FROM s
UNION ALL SELECT * FROM (SELECT j.key, CASE WHEN j.type IN ('true', 'false') THEN j.type
                                            ELSE substr(CAST(j.value AS TEXT), 1, 80) END
                         FROM s, json_each(s.identity) j
                         WHERE j.value IS NOT NULL AND j.value <> '' ORDER BY j.key)
"""))

# === completeness
# %% [markdown]
# ## How complete it is
#
# A row of the grid is committed whole when it is done. *previewed* points come from the coarse pass that is made
# first; they have the values that the whole grid will have. A *hole* was measured and was not finite.
# %% table
show(read("""
SELECT s.state, sum(r.state = 'done') AS "rows done", s.nx AS "of", 100.0 * sum(r.state = 'done') / s.nx AS "%",
       s.reason
FROM surface s JOIN surface_row r USING (surface_id)
WHERE surface_id = :surface
GROUP BY s.surface_id
"""))
# %% table
show(read("""
SELECT metric, count(*) AS points, s.nx * s.ny AS "of", sum(preview) AS previewed, count(*) - count(value) AS holes,
       min(value) AS lowest, avg(value) AS mean, max(value) AS highest
FROM surface_picture p JOIN surface s USING (surface_id)
WHERE surface_id = :surface
GROUP BY metric
"""))

# === map
# %% [markdown]
# ## The surface
#
# Colour is the value and lines join equal values. Marked are the base model (the origin: v = 0 is the
# untouched model, bit for bit), the best point of the grid, the minimum that a minimiser found from there, and the
# way that training took, if a run is laid over it. Parts of a path that are far from the plane are seen
# only as their shadow on it: *distance* in the table of places says how far.
# %% code
def grid_of(metric):
    """x, y and z[iy, ix] of a metric, shares in percent; masked where nothing is."""
    points = pd.read_sql_query("SELECT x, y, value FROM surface_picture WHERE surface_id = ? AND metric = ?",
                               connection, params=(NAMES["surface"], metric))
    z = points.pivot(index="y", columns="x", values="value").astype(float)
    scale = 100 if metric == "accuracy" else 1
    return z.columns.to_numpy(), z.index.to_numpy(), np.ma.masked_invalid(scale * z.to_numpy())


surface = read("SELECT * FROM surface WHERE surface_id = :surface").iloc[0]
marks = read("SELECT * FROM surface_mark WHERE surface_id = :surface ORDER BY kind, name, place")
UNITS = {"loss": "loss (nats per token)", "entropy": "entropy (nats per token)", "grad_norm": "gradient norm",
         "kl": "KL to base (nats per token)", "reward": "mean reward", "accuracy": "accuracy (%)"}
LOOKS = {"best": ("s", 90, "best grid point"), "base": ("o", 50, "base model"), "run": ("D", 60, "stored run"),
         "minimum": ("*", 160, "minimum of the loss")}


def heat_map(metric):
    x, y, z = grid_of(metric)
    fig, ax = plt.subplots(figsize=(5.6, 5))
    low, high = np.percentile(z.compressed(), [2, 98])
    picture = ax.pcolormesh(x, y, z, shading="nearest", vmin=low, vmax=max(high, low + 1e-12))
    if min(z.shape) > 2 and not z.mask.mean() > 0.5 and high > low:
        ax.contour(x, y, z, np.linspace(low, high, 10), colors="white", linewidths=0.6)
    fig.colorbar(picture, label=UNITS.get(metric, metric), extend="both", shrink=0.85)
    for name, path in marks[marks.kind == "path"].groupby("name"):
        ax.plot(path.x, path.y, "-", color="white", lw=2.4)
        ax.plot(path.x, path.y, ".-", color="black", lw=1, ms=3, label=f"training run {name[:8]}")
    for kind, (mark, size, label) in LOOKS.items():
        its = (marks.kind == kind) & ((kind != "best") | (marks.metric == metric))
        places = marks[its].drop_duplicates(["x", "y"])
        if len(places):
            ax.scatter(places.x, places.y, size, "white", mark, edgecolors="black", zorder=3, label=label)
    ax.set(xlabel=plain(surface.x_label), ylabel=plain(surface.y_label), box_aspect=1)
    ax.grid(False)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncol=2)
    plt.show()
# %% figure surface each
heat_map({{metric}})

# === relief
# %% [markdown]
# ## The same in three dimensions
#
# A picture to get a feeling; read numbers from the map. One view hides what lies behind the ridges.
# %% figure surface-3d
x, y, z = grid_of(NAMES["metric"])
fig, ax = plt.subplots(figsize=(6.4, 5), subplot_kw={"projection": "3d"})
ax.plot_surface(*np.meshgrid(x, y), z, cmap="viridis", linewidth=0.2, edgecolor="#404040")
ax.set_box_aspect((1, 1, 0.7), zoom=0.85)
ax.set(xlabel=plain(surface.x_label), ylabel=plain(surface.y_label), zlabel=UNITS.get(NAMES["metric"]))
plt.show()

# === slices
# %% [markdown]
# ## Along lines
#
# Through the minimum: along the axes of the plane, and along the eigenvectors of the Hessian, the steepest first.
# Two curves that bend alike are a bowl; a flat one is a direction that the model does not care about.
# %% figure slices
slices = read("""
SELECT name, t, value FROM surface_slice WHERE surface_id = :surface AND metric = :metric ORDER BY name, place
""")
fig, ax = plt.subplots()
for k, (name, line) in enumerate(slices.groupby("name")):
    ax.plot(line.t, line.value, color=COLORS[k % 7], ls=DASHES[k % 4], label=f"along {name}")
ax.set(xlabel="t (units of v)", ylabel=UNITS.get(NAMES["metric"], NAMES["metric"]))
ax.legend()
plt.show()

# === places
# %% [markdown]
# ## Places worth naming
#
# *se* is the standard error over the rows that were measured. *above base* is the difference to the base model's value.
# %% table
show(read("""
SELECT m.kind AS place, nullif(m.name, '') AS run, m.metric, m.x, m.y, m.distance, m.value,
       coalesce(e.value, p.value) AS se, m.value - b.value AS "above base"
FROM surface s JOIN surface_mark m USING (surface_id) JOIN json_each(s.metrics) j ON j.value = m.metric
LEFT JOIN surface_mark b ON b.surface_id = m.surface_id AND b.kind = 'base' AND b.metric = m.metric
LEFT JOIN surface_mark e ON e.surface_id = m.surface_id AND e.kind = m.kind AND e.name = m.name
                            AND e.place = m.place AND e.metric = m.metric || '_se'
LEFT JOIN surface_point p ON p.surface_id = m.surface_id AND p.x = m.x AND p.y = m.y AND p.metric = m.metric || '_se'
WHERE s.surface_id = :surface AND m.kind <> 'path'
ORDER BY j.key, m.kind, m.name, m.place
"""))
# %% [markdown]
# Is the minimum below the base model by more than chance? *gain* is the base model's loss minus the minimum's, with the
# standard error of that difference: both were measured on the same rows, so it is smaller than the errors of the two
# values would suggest. *p* is the paired t test over rows. It is a test on the rows that the minimum was
# searched on, and so too kind to it: other rows decide.
# %% table
show(read("""
SELECT m.x, m.y, max(m.value) FILTER (WHERE m.metric = 'gain') AS gain,
       max(m.value) FILTER (WHERE m.metric = 'gain_se') AS se, max(m.value) FILTER (WHERE m.metric = 'p_value') AS p
FROM surface_mark m
WHERE m.surface_id = :surface AND m.kind = 'minimum' AND m.metric IN ('gain', 'gain_se', 'p_value')
GROUP BY m.x, m.y
"""))
# %% [markdown]
# The path of training over the plane: where it began, where it ended, and how far from the plane it went.
# %% table
show(read("""
WITH path AS (
    SELECT *, min(place) OVER (PARTITION BY name) AS first, max(place) OVER (PARTITION BY name) AS last,
           max(distance) OVER (PARTITION BY name) AS farthest
    FROM surface_mark WHERE surface_id = :surface AND kind = 'path'
)
SELECT name AS run, place AS step, x, y, distance, farthest AS "largest distance"
FROM path WHERE place IN (first, last)
ORDER BY name, place
"""))

# === hessian
# %% [markdown]
# ## Curvature
#
# Eigenvalues of the Hessian of the loss by v. Near its minimum the loss rises by eigenvalue times distance squared over
# two along each eigenvector. Their ratio is the condition number: where it is large, one learning rate
# is too high for one direction and too low for the other. A negative one at the base model is a way down.
# %% table
show(read("""
SELECT place, k + 1 AS k, eigenvalue,
       eigenvalue / min(abs(eigenvalue)) OVER (PARTITION BY place) AS "ratio to the flattest",
       CASE WHEN eigenvalue > 0 THEN 2 / eigenvalue END AS "largest stable rate"
FROM surface_hessian
WHERE surface_id = :surface
ORDER BY place, k
"""))

# === events
# %% [markdown]
# ## What happened on the way
# %% table
show(read("""
SELECT kind AS event, count(*) AS times, min(message) AS example
FROM event WHERE surface_id = :surface AND kind <> 'worker' GROUP BY kind ORDER BY kind
"""))

# === conclusions
# %% [markdown]
# ## What may not be concluded
#
# - **That the lowest point is a better model.** It is the lowest on the rows that were measured; measure it on rows
#   that had no part in the search.
# - **That the landscape is as smooth as the picture.** Between the points nothing was measured.
# - **Anything about other directions** where more than two scalars are trained: a plane can miss every valley, and
#   what looks like a minimum on it can be a slope beside it.
# - **That accuracy follows loss.** They are different questions to the same model; compare their maps.
# - **That another model, other rows or another template** would look alike: they are part of what was measured.
