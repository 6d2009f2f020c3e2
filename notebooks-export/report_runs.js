// Runs of an experiment: the table that sorts and filters, rates against scores, learning curves.

const okabe = (k) => `var(--c${k % 6})`; // Okabe and Ito's colours, of report.css
const ramp = (share) => rgb(viridis(isDark() ? 0.35 + 0.65 * share : 0.88 * share));
const DASHES = [null, '7 3', '2 3', '8 3 2 3'];

// What tells the cells of an experiment apart, and how each is drawn.
function describeCells(data) {
  const runs = data.runs, cells = [];
  for (let i = 0; i < runs.count; i++) {
    if (runs.kind[i] !== 'run') continue;
    const cell = cells[runs.cell[i]] = cells[runs.cell[i]] || {
      model: runs.model[i], method: runs.method[i], adapter: runs.adapter[i], budget: runs.budget[i],
      point: runs.point[i], lr: runs.lr[i], runs: [],
    };
    cell.runs.push(i);
  }
  const list = cells.filter(Boolean), differs = (key) => new Set(list.map((c) => c[key])).size > 1;
  const plan = (c) => ['model', 'method', 'adapter', 'budget'].map((key) => c[key]).join('|');
  const twins = new Set(list.map(plan)).size < new Set(list.map((c) => `${plan(c)}|${c.point}`)).size; // plans of one size
  const others = ['model', 'method', ...(twins ? ['point'] : ['adapter', 'budget'])].filter(differs), rates = [...new Set(list.map((c) => c.lr))].sort((a, b) => a - b);
  const groups = [...new Set(list.map((c) => others.map((key) => c[key]).join('|')))];
  list.forEach((cell, k) => {
    const words = others.map((key) => (key === 'budget' ? `${cell.budget} scalars` : cell[key]));
    cell.group = groups.indexOf(others.map((key) => cell[key]).join('|'));
    cell.groupName = words.join(', ');
    if (rates.length > 1 || !words.length) words.push(`rate ${show(cell.lr, 6)}`);
    cell.name = words.join(', ');
    cell.colour = () => {
      if (rates.length < 3 && list.length <= 6) return okabe(k);
      const share = rates.length > 1 ? rates.indexOf(cell.lr) / (rates.length - 1) : 0.5;
      return ramp(share);
    };
    cell.dash = DASHES[groups.length > 1 ? cell.group % DASHES.length : rates.indexOf(cell.lr) % 3];
  });
  return { cells, list, groups, rates };
}

const runName = (data, i) => data.runs.run_id[i].slice(0, 8);

function startTable(section, data) {
  const table = section.querySelector('table.runs'), host = section.querySelector('.runs-view');
  if (!table) return;
  const bodies = table.tBodies, rows = [...bodies[1].rows], base = [...bodies[0].rows];
  const heads = [...table.tHead.rows[0].cells], runs = data.runs;
  let score = data.main, sorted = null;
  const column = ['run_id', 'method', 'adapter', 'budget', 'lr', 'seed', 'state', 'last_step', 'value', 'standard_error', 'gain', 'p_value', 'holm', 'n'];
  const of = (key, value, error) => (key === 'n' ? show(value) : key === 'p_value' || key === 'holm' ? showP(value)
    : (key === 'gain' && value > 0 ? '+' : '') + estimate(value, error));
  const scored = new Set(column.slice(8));
  let place = [];
  const findPlaces = () => { place = []; if (data.scores[score]) data.scores[score].run.forEach((run, k) => { place[run] = k; }); };
  const valueOf = (row, key) => {
    const run = Number(row.dataset.r);
    if (!scored.has(key)) return key === 'seed' ? Number(runs.seed[run]) : runs[key][run];
    return place[run] === undefined ? null : data.scores[score][key][place[run]];
  };
  const refill = () => {
    findPlaces();
    for (const row of base.concat(rows)) {
      column.forEach((key, c) => {
        if (scored.has(key)) row.cells[c].textContent = of(key, valueOf(row, key), valueOf(row, 'standard_error'));
      });
    }
    base.forEach((row) => { row.hidden = data.scores.length > 0 && place[Number(row.dataset.r)] === undefined; });
  };
  const sort = (c, down) => {
    const key = column[c];
    const compare = (a, b) => {
      const x = valueOf(a, key), y = valueOf(b, key), noX = x === null || Number.isNaN(x), noY = y === null || Number.isNaN(y);
      if (noX || noY) return noX - noY || Number(a.dataset.r) - Number(b.dataset.r); // what is missing comes last
      const order = typeof x === 'string' ? (x < y ? -1 : x > y) : x - y;
      return (down ? -order : order) || Number(a.dataset.r) - Number(b.dataset.r);
    };
    bodies[1].append(...rows.sort(compare));
    heads.forEach((head, k) => head.setAttribute('aria-sort', k !== c ? 'none' : down ? 'descending' : 'ascending'));
    sorted = { c, down };
  };
  heads.forEach((head, c) => {
    const numbers = c >= 7 && column[c] !== 'p_value' && column[c] !== 'holm' && column[c] !== 'standard_error';
    const button = h('button', { type: 'button', title: head.title, onclick: () => sort(c, sorted && sorted.c === c ? !sorted.down : numbers) }, head.textContent);
    head.replaceChildren(button);
    head.removeAttribute('title');
    head.setAttribute('aria-sort', 'none');
  });
  const count = h('output', {});
  const filter = (text) => {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const run = Number(row.dataset.r);
      const all = [runs.run_id[run], ...[...row.cells].slice(1, 7).map((cell) => cell.textContent)].join(' ').toLowerCase();
      row.hidden = !words.every((word) => all.includes(word));
      shown += !row.hidden;
    }
    count.textContent = words.length ? `${shown} of ${rows.length}` : '';
  };
  const box = h('input', { type: 'search', placeholder: 'grpo 0.05 done', oninput: () => filter(box.value) });
  const controls = h('div', { class: 'controls' }, h('label', {}, 'Filter ', box), count);
  if (data.scores.length > 1) {
    controls.prepend(choice('Score', data.scores.map((x, k) => [k, [x.extractor, x.task].filter(Boolean).join(', ')]), score, (k) => {
      score = Number(k);
      refill();
      if (sorted) sort(sorted.c, sorted.down);
      section.dispatchEvent(new CustomEvent('score', { detail: score }));
    }));
    section.querySelector('.score-name').hidden = true;
  }
  host.append(controls);
  refill();
  if (data.scores.length) sort(8, !data.scores[score].less);
  const set = () => table.style.setProperty('--head', `${table.tHead.offsetHeight - 1}px`);
  redraws.add(set);
  set();
}

// Score against learning rate or number of scalars; points are runs, lines join means over seeds.
function startRates(section, data, drawn) {
  const host = section.querySelector('.rates-view');
  if (!host || !data.scores.length) return;
  let axis = drawn.rates.length > 1 || new Set(drawn.list.map((c) => c.budget)).size < 2 ? 'lr' : 'budget', score = data.main, redraw = null;
  const spec = () => {
    const list = data.scores[score], place = [];
    list.run.forEach((run, k) => { place[run] = k; });
    const lines = [], groups = new Map();
    for (const cell of drawn.list) {
      const key = axis === 'lr' ? cell.groupName : [cell.model, cell.method, cell.adapter].join(', ');
      if (!groups.has(key)) groups.set(key, []);
      groups.get(key).push(cell);
    }
    [...groups].forEach(([name, cells], g) => {
      const colour = okabe(g), means = [];
      const points = { name, colour, pointsOnly: true, marks: true, xs: [], ys: [], errors: [], shift: [], who: [] };
      for (const cell of cells) {
        const there = cell.runs.filter((run) => place[run] !== undefined);
        there.forEach((run, k) => {
          points.shift.push((k - (there.length - 1) / 2) * Math.min(6, 30 / there.length)); // seeds side by side
          points.xs.push(cell[axis]);
          points.ys.push(list.value[place[run]]);
          points.errors.push(list.standard_error[place[run]]);
          points.who.push(run);
        });
        if (there.length) means.push([cell[axis], there.reduce((sum, run) => sum + list.value[place[run]], 0) / there.length]);
      }
      const byPlace = new Map();
      for (const [x, y] of means) byPlace.set(x, [...(byPlace.get(x) || []), y]);
      const xs = [...byPlace.keys()].sort((a, b) => a - b);
      lines.push({ name, colour, dash: DASHES[g % DASHES.length], faint: true, xs, ys: xs.map((x) => (axis === 'lr' ? byPlace.get(x)[0] : largest(byPlace.get(x)))),
        info: (i) => [name || 'mean over seeds', `${axis === 'lr' ? 'rate' : 'scalars'} ${show(xs[i], 6)}`, `${axis === 'lr' ? 'mean' : 'best mean'} ${show(lines.find((l) => l.xs === xs).ys[i])}`] });
      points.info = (i) => {
        const run = points.who[i];
        return [`run ${runName(data, run)}`, `${data.runs.method[run]}, ${data.runs.point[run]}, ${data.runs.budget[run]} scalars`,
          `rate ${show(data.runs.lr[run], 6)}, seed ${data.runs.seed[run]}`, `${list.extractor} ${estimate(points.ys[i], points.errors[i])} \u00b1 ${estimate(points.errors[i], points.errors[i])}`];
      };
      lines.push(points);
    });
    const levels = list.run.map((run, k) => [run, k]).filter(([run]) => run >= 0 && data.runs.kind[run] === 'base').map(([, k]) => ({
      y: list.value[k], low: list.value[k] - (list.standard_error[k] || 0), high: list.value[k] + (list.standard_error[k] || 0), name: 'base model',
    }));
    const log = lines.every((line) => line.xs.every((x) => x > 0));
    return { label: `${list.extractor} against ${axis === 'lr' ? 'learning rate' : 'number of trained scalars'}; arrow keys walk the points`, height: 300,
      x: { label: axis === 'lr' ? 'learning rate' : 'trained scalars', log, pad: true }, y: { label: withUnit(list.extractor) }, lines, levels };
  };
  const legend = h('ul', { class: 'legend' });
  const present = () => {
    const next = spec(), named = next.lines.filter((line) => line.pointsOnly && line.name);
    legend.replaceChildren(...named.map((line, g) => legendItem(line.name, line.colour, DASHES[g % DASHES.length])));
    return next;
  };
  const figure = h('figure', {}, h('figcaption', {}, h('strong', {}, 'Score by learning rate. '),
    'Points are runs with one standard error over the rows of the data; the thin line joins means over seeds; the dashed line with its band is the base model.'));
  host.append(h('h3', {}, 'Learning rate against score'));
  const controls = h('div', { class: 'controls' });
  if (new Set(drawn.list.map((c) => c.budget)).size > 1) controls.append(choice('Across', [['lr', 'learning rate'], ['budget', 'trained scalars']], axis, (value) => { axis = value; redraw(present()); }));
  if (controls.childElementCount) host.append(controls);
  host.append(figure);
  const place = h('div', {});
  figure.prepend(place, legend);
  redraw = chart(place, present());
  section.addEventListener('score', (event) => { score = event.detail; redraw(present()); });
}

function legendItem(name, colour, dash, toggled) {
  const line = s('line', { x1: 0, x2: 26, y1: 6, y2: 6, 'stroke-width': 2.5, 'stroke-dasharray': dash });
  line.style.stroke = colour;
  const swatch = s('svg', { width: 26, height: 12, 'aria-hidden': 'true' }, line);
  if (!toggled) return h('li', {}, swatch, ` ${name}`);
  const button = h('button', { type: 'button', 'aria-pressed': 'true', onclick: () => {
    const on = button.getAttribute('aria-pressed') !== 'true';
    button.setAttribute('aria-pressed', String(on));
    toggled(on);
  } }, swatch, ` ${name}`);
  return h('li', {}, button);
}

const LEGEND_MOST = 14, BEST = 10;

// The cells with the best mean scores.
function bestCells(data, drawn) {
  const score = data.scores[data.main], mean = (cell) => {
    const there = score ? cell.runs.map((run) => score.value[score.run.indexOf(run)]).filter((v) => v !== undefined) : [];
    return there.length ? (score.less ? -1 : 1) * there.reduce((a, b) => a + b, 0) / there.length : -Infinity;
  };
  return new Set(drawn.list.map((cell) => [mean(cell), cell]).sort((a, b) => b[0] - a[0]).slice(0, BEST).map(([, cell]) => cell));
}

function startCurves(section, data, drawn) {
  const host = section.querySelector('.curves-view'), curves = data.curves;
  if (!host || !curves || !curves.metrics.length) return;
  const sums = (steps) => { let at = 0; return steps.map((d) => { at += d; return at; }); };
  for (const metric of curves.metrics) {
    for (const line of metric.lines) line[1] = sums(line[1]);
    for (const band of metric.bands) band[1] = sums(band[1]);
  }
  let metric = curves.metrics[0], log = false, smooth = 0;
  const seeds = curves.metrics.some((m) => m.bands.length);
  let averaged = seeds;
  const hidden = new Set(), many = drawn.list.length > LEGEND_MOST, best = bestCells(data, drawn);
  let some = many;
  const few = drawn.list.filter((cell) => best.has(cell)); // as many as a legend can tell apart
  const colourOf = (cell) => (some ? ramp(few.indexOf(cell) / Math.max(1, few.length - 1)) : cell.colour());
  const dashOf = (cell) => (some ? DASHES[few.indexOf(cell) % 3] : cell.dash);
  const out = (cell) => !cell || hidden.has(cell) || (some && !best.has(cell));
  const smoothed = (ys) => {
    if (!smooth) return ys;
    return ys.map((y, i) => {
      if (y === null) return null;
      const near = finite(ys.slice(Math.max(0, i - smooth), i + smooth + 1));
      return near.reduce((a, b) => a + b, 0) / near.length;
    });
  };
  const spec = () => {
    const lines = [];
    const banded = new Set(averaged ? metric.bands.map((band) => band[0]) : []);
    for (const [run, xs, ys] of metric.lines) {
      const cell = drawn.cells[data.runs.cell[run]];
      if (out(cell) || banded.has(data.runs.cell[run])) continue;
      lines.push({ name: runName(data, run), colour: colourOf(cell), dash: dashOf(cell), xs, ys: smoothed(ys),
        info: (i) => [`run ${runName(data, run)}`, `${cell.name}${drawn.rates.length > 1 ? '' : `, rate ${show(cell.lr, 6)}`}, seed ${data.runs.seed[run]}`,
          `step ${xs[i]}: ${metric.key} ${show(ys[i], 5)}${smooth ? ` (smoothed ${show(smoothed(ys)[i], 5)})` : ''}`] });
    }
    if (averaged) {
      for (const [k, xs, mean, se, n] of metric.bands) {
        const cell = drawn.cells[k];
        if (out(cell)) continue;
        const middle = smoothed(mean), width = smoothed(se);
        lines.push({ name: cell.name, colour: colourOf(cell), dash: dashOf(cell), xs, ys: middle,
          low: middle.map((v, i) => (v === null ? null : v - width[i])), high: middle.map((v, i) => (v === null ? null : v + width[i])),
          info: (i) => [`mean of ${n[i]} seeds`, cell.name, `step ${xs[i]}: ${metric.key} ${show(mean[i], 5)} \u00b1 ${show(se[i], 2)}`] });
      }
    }
    return { label: `learning curves of ${metric.key}; arrow keys walk along a curve and between curves`, height: 340,
      x: { label: 'step' }, y: { label: withUnit(metric.key), log }, lines };
  };
  const place = h('div', {}), legend = h('ul', { class: 'legend' });
  const notes = [];
  if (curves.longest > curves.points) notes.push(`Curves of up to ${curves.longest} steps are thinned to ${curves.points} points (largest triangles), means before that.`);
  if (curves.flat.length) notes.push(`The same at every step of every run: ${curves.flat.map(([key, value]) => `${key} = ${show(value)}`).join(', ')}.`);
  if (curves.left.length) notes.push(`Not on this page for its size: ${curves.left.join(', ')}.`);
  host.append(h('h3', {}, 'Learning curves'));
  let redraw = null;
  const again = () => redraw(spec());
  const controls = h('div', { class: 'controls' },
    choice('Metric', curves.metrics.map((m, k) => [k, m.key]), 0, (k) => { metric = curves.metrics[k]; again(); }),
    choice('Smooth', [[0, 'not'], [2, 'over 5 points'], [7, 'over 15 points'], [25, 'over 51 points']], 0, (k) => { smooth = Number(k); again(); }),
    tick('log scale', false, (on) => { log = on; again(); }));
  if (many) controls.append(choice('Show', [[1, `the best ${BEST} cells`], [0, `all ${drawn.list.length} cells`]], 1, (value) => { some = value === '1'; hidden.clear(); drawLegend(); again(); }));
  if (seeds) controls.append(tick('mean and standard error over seeds', true, (on) => { averaged = on; again(); }));
  host.append(controls, h('figure', {}, place, legend, h('figcaption', {}, h('strong', {}, 'Learning curves. '), notes.join(' '))));
  const drawLegend = () => {
    if (some || !many) {
      legend.replaceChildren(...(some ? few : drawn.list).map((cell) => legendItem(cell.name, colourOf(cell), dashOf(cell), (on) => { if (on) hidden.delete(cell); else hidden.add(cell); again(); })));
    } else {
      const low = drawn.rates[0], high = drawn.rates[drawn.rates.length - 1], bar = s('svg', { width: 160, height: 12, 'aria-hidden': 'true' });
      for (let k = 0; k < 32; k++) bar.append(s('rect', { x: 5 * k, width: 5.5, height: 12, fill: ramp(k / 31) }));
      legend.replaceChildren(h('li', {}, `rate ${show(low)} `, bar, ` ${show(high)}`),
        ...drawn.groups.slice(0, LEGEND_MOST).map((_, g) => { const cell = drawn.list.find((c) => c.group === g); return legendItem(cell.groupName || 'runs', 'currentColor', cell.dash); }));
    }
  };
  redraw = chart(place, spec());
  drawLegend();
  let dark = isDark();
  redraws.add(() => { if (dark !== isDark()) { dark = isDark(); hidden.clear(); drawLegend(); again(); } });
}
