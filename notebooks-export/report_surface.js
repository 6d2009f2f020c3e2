// A surface: colours, contours, marked points, the value under the pointer and the slices through it.

const STATE = { missing: '0', there: '1', preview: '2', hole: '3' };

// Borders of the cells around rising coordinates.
function borders(v) {
  if (v.length === 1) return [v[0] - 0.5, v[0] + 0.5];
  const middle = v.slice(1).map((x, i) => (x + v[i]) / 2), n = v.length;
  return [v[0] - (v[1] - v[0]) / 2, ...middle, v[n - 1] + (v[n - 1] - v[n - 2]) / 2];
}

// Values to draw: those that are known, and where nothing is computed yet what lies between them, linear along
// rows and columns, first between known points, then between these; at the rim the nearest. Holes stay null.
function filledIn(layer, nx, ny) {
  const z = layer.z.map((v, k) => (layer.state[k] === STATE.there || layer.state[k] === STATE.preview ? v : null));
  const alongLine = (known, first, stride, n, into) => {
    let last = -1;
    for (let m = 0; m < n; m++) {
      const v = known[first + m * stride];
      if (v === null) continue;
      for (let g = last + 1; last >= 0 && g < m; g++) {
        const t = (g - last) / (m - last), k = first + g * stride;
        into[k] = into[k] || [0, 0];
        into[k][0] += (known[first + last * stride] * (1 - t) + v * t) / (m - last);
        into[k][1] += 1 / (m - last);
      }
      last = m;
    }
  };
  for (let round = 0; round < 3; round++) {
    const into = [], known = z.slice();
    for (let i = 0; i < nx; i++) alongLine(known, i * ny, 1, ny, into);
    for (let j = 0; j < ny; j++) alongLine(known, j, ny, nx, into);
    into.forEach((sum, k) => { if (layer.state[k] === STATE.missing && z[k] === null) z[k] = sum[0] / sum[1]; });
  }
  let rim = z.map((v, k) => k).filter((k) => z[k] !== null);
  while (rim.length) {
    const next = [];
    for (const k of rim) {
      const i = Math.floor(k / ny), j = k % ny;
      for (const [a, b] of [[i - 1, j], [i + 1, j], [i, j - 1], [i, j + 1]]) {
        const m = a * ny + b;
        if (a >= 0 && a < nx && b >= 0 && b < ny && z[m] === null && layer.state[m] === STATE.missing) { z[m] = z[k]; next.push(m); }
      }
    }
    rim = next;
  }
  return z;
}

// Marching squares: the pieces of the line at `level` in screen coordinates. Cells with a corner that has no
// value are left out; a saddle is split by its mean.
function contour(z, X, Y, level, px, py) {
  const ny = Y.length;
  let d = '';
  for (let i = 0; i + 1 < X.length; i++) {
    for (let j = 0; j + 1 < ny; j++) {
      const c = [z[i * ny + j], z[(i + 1) * ny + j], z[(i + 1) * ny + j + 1], z[i * ny + j + 1]];
      if (c.some((v) => v === null)) continue;
      const above = c.map((v) => v >= level), n = above.filter(Boolean).length;
      if (n === 0 || n === 4) continue;
      const place = [[X[i], Y[j]], [X[i + 1], Y[j]], [X[i + 1], Y[j + 1]], [X[i], Y[j + 1]]];
      const cuts = [];
      for (let k = 0; k < 4; k++) {
        const m = (k + 1) % 4;
        if (above[k] === above[m]) continue;
        const t = (level - c[k]) / (c[m] - c[k]);
        cuts.push([px(place[k][0] + t * (place[m][0] - place[k][0])), py(place[k][1] + t * (place[m][1] - place[k][1]))]);
      }
      const mean = (c[0] + c[1] + c[2] + c[3]) / 4;
      const order = cuts.length === 2 ? [0, 1] : (mean >= level) === above[0] ? [0, 1, 2, 3] : [3, 0, 1, 2];
      for (let k = 0; k < order.length; k += 2) {
        const [a, b] = [cuts[order[k]], cuts[order[k + 1]]];
        d += `M${a[0].toFixed(1)} ${a[1].toFixed(1)}L${b[0].toFixed(1)} ${b[1].toFixed(1)}`;
      }
    }
  }
  return d;
}

const GLYPHS = {
  base: 'M0-6a6 6 0 1 0 .01 0ZM0-1.6a1.6 1.6 0 1 1-.01 0Z',
  best: 'M0-8L2.1-2.6 7.6-2.5 3.3 1.2 4.7 6.5 0 3.4-4.7 6.5-3.3 1.2-7.6-2.5-2.1-2.6Z',
  minimum: 'M0-7L6 0 0 7-6 0Z',
  run: 'M0-7L6.5 5H-6.5Z',
};
const GLYPH_NAMES = { base: 'base model', best: 'best point of the grid', minimum: 'refined minimum', run: 'a stored run' };

const nth = (n) => ({ 1: 'one', 2: 'second', 3: 'third' }[n] || `${n}th`);

function startSurface(section, data) {
  const view = section.querySelector('.surface-view'), X = data.x, Y = data.y, nx = X.length, ny = Y.length;
  const layers = data.layers.filter((layer) => /[12]/.test(layer.state));
  if (!layers.length) {
    view.append(h('p', { class: 'note' }, 'No point has a value yet.'));
    return;
  }
  let layer = layers[0], colours = 'linear', contours = true, marked = true, cell = null, drawn = null, range = null, sorted = null;

  const marksOf = () => data.marks.filter((mark) => mark.kind !== 'path' && (mark.metric === layer.name ||
    (mark.metric === '' && !data.marks.some((other) => other.kind === mark.kind && other.name === mark.name && other.metric === layer.name))));
  const prepare = () => {
    drawn = filledIn(layer, nx, ny);
    sorted = Float64Array.from(layer.z.filter((v, k) => v !== null && layer.state[k] !== STATE.missing)).sort();
    range = [sorted[0], sorted[sorted.length - 1]];
    if (colours === 'logarithmic' && !(range[0] > 0)) colours = 'linear';
  };
  const share = (v) => {
    if (!(range[1] > range[0])) return 0.5;
    if (colours === 'logarithmic') return Math.log(v / range[0]) / Math.log(range[1] / range[0]);
    if (colours === 'by rank') {
      let a = 0, b = sorted.length - 1;
      while (a < b) { const m = (a + b) >> 1; if (sorted[m] < v) a = m + 1; else b = m; }
      return a / Math.max(1, sorted.length - 1);
    }
    return (v - range[0]) / (range[1] - range[0]);
  };
  const levels = () => {
    if (!(range[1] > range[0])) return [];
    if (colours === 'logarithmic') return logTicks(range[0], range[1], 9).filter((v) => v > range[0] && v < range[1]);
    if (colours === 'by rank') return [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9].map((q) => sorted[Math.round(q * (sorted.length - 1))]);
    return ticks(range[0], range[1], 9).filter((v) => v > range[0] && v < range[1]);
  };

  prepare();
  const start = marksOf().find((mark) => mark.kind === 'best') || marksOf().find((mark) => mark.kind === 'base');
  const closest = (list, v) => list.reduce((best, u, k) => (Math.abs(u - v) < Math.abs(list[best] - v) ? k : best), 0);
  const middle = (k) => Math.hypot(Math.floor(k / ny) - nx / 2, k % ny - ny / 2);
  cell = start && [closest(X, start.x), closest(Y, start.y)];
  if (!cell || layer.state[cell[0] * ny + cell[1]] === STATE.missing) { // the computed point next to the middle
    const k = [...layer.state].map((_, n) => n).filter((n) => layer.state[n] !== STATE.missing).reduce((a, b) => (middle(b) < middle(a) ? b : a));
    cell = [Math.floor(k / ny), k % ny];
  }

  // --- the picture ----------------------------------------------------------------------------------

  const canvas = h('canvas', { 'aria-hidden': 'true' });
  const frame = h('div', { class: 'map', tabindex: 0, role: 'group', 'aria-label': `surface of ${data.x_label} and ${data.y_label}; arrow keys move the point` }, canvas);
  const legend = h('ul', { class: 'legend' }), note = h('figcaption', {});
  const readout = h('p', { class: 'readout' }), sliceX = h('div', {}), sliceY = h('div', {});
  let plot = null, drawX = null, drawY = null;

  function paintCells(box) {
    const ratio = Math.min(3, devicePixelRatio || 1), { ex, ey, px, py, left, top, width, height } = box;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    Object.assign(canvas.style, { left: `${left}px`, top: `${top}px`, width: `${width}px`, height: `${height}px` });
    const c = canvas.getContext('2d'), dark = isDark();
    c.setTransform(ratio, 0, 0, ratio, -left * ratio, -top * ratio);
    c.fillStyle = dark ? '#2a2d31' : '#eceef0';
    c.fillRect(left, top, width, height);
    for (let i = 0; i < nx; i++) {
      for (let j = 0; j < ny; j++) {
        const k = i * ny + j, x0 = px(ex[i]), x1 = px(ex[i + 1]), y0 = py(ey[j + 1]), y1 = py(ey[j]);
        if (layer.state[k] === STATE.hole) {
          c.fillStyle = dark ? '#000' : '#fff';
          c.fillRect(x0, y0, x1 - x0, y1 - y0);
          c.strokeStyle = dark ? '#fff' : '#000';
          c.lineWidth = 1;
          c.beginPath();
          c.moveTo(x0 + 1, y0 + 1); c.lineTo(x1 - 1, y1 - 1);
          c.moveTo(x0 + 1, y1 - 1); c.lineTo(x1 - 1, y0 + 1);
          c.stroke();
        } else if (drawn[k] !== null) {
          c.fillStyle = rgb(viridis(share(drawn[k])));
          c.fillRect(x0, y0, x1 - x0 + 0.6, y1 - y0 + 0.6); // a hair over, against seams
        }
      }
    }
    c.strokeStyle = 'rgba(255,255,255,0.75)';
    c.lineWidth = 1;
    for (let i = 0; i < nx; i++) {
      for (let j = 0; j < ny; j++) {
        if (layer.state[i * ny + j] !== STATE.missing) continue;
        const x0 = px(ex[i]), x1 = px(ex[i + 1]), y0 = py(ey[j + 1]), y1 = py(ey[j]);
        c.save();
        c.beginPath(); c.rect(x0, y0, x1 - x0, y1 - y0); c.clip();
        c.beginPath();
        for (let at = Math.floor((x0 + y0) / 6) * 6; at <= x1 + y1; at += 6) { c.moveTo(at - y0, y0); c.lineTo(at - y1, y1); }
        c.stroke();
        c.restore();
      }
    }
  }

  function colourBar(svg, left, right) {
    const steps = 64, width = right - left, marks = levels();
    for (let k = 0; k < steps; k++) svg.append(s('rect', { x: left + k * width / steps, y: 20, width: width / steps + 0.6, height: 12, fill: rgb(viridis((k + 0.5) / steps)) }));
    svg.append(s('text', { class: 'axis title', x: left, y: 13 }, `${withUnit(layer.name)}${colours === 'linear' ? '' : `, ${colours}`}`));
    let free = left - 1e9;
    for (const v of marks) {
      const x = left + share(v) * width, room = show(v, 3).length * 3.6;
      svg.append(s('line', { class: 'tick', x1: x, x2: x, y1: 20, y2: 35 }));
      if (x - room > free && x - room > left - 30 && x + room < right + 14) {
        svg.append(s('text', { class: 'axis', x, y: 46, 'text-anchor': 'middle' }, show(v, 3)));
        free = x + room + 5;
      }
    }
  }

  function glyph(kind, x, y) {
    return s('path', { class: `glyph ${kind}`, d: GLYPHS[kind], transform: `translate(${x} ${y})` });
  }

  function draw() {
    const whole = Math.max(240, Math.min(600, frame.clientWidth || 480));
    const ex = borders(X), ey = borders(Y), yTicksGuess = ticks(ey[0], ey[ny], 6);
    const left = 26 + 6.6 * Math.max(...yTicksGuess.map((t) => show(t).length)), right = 12, top = 54, bottom = 42;
    const width = whole - left - right, height = width;
    const px = scale(ex[0], ex[nx], left, left + width), py = scale(ey[0], ey[ny], top + height, top);
    frame.style.height = `${top + height + bottom}px`;
    paintCells({ ex, ey, px, py, left, top, width, height });
    const svg = s('svg', { width: whole, height: top + height + bottom, 'aria-hidden': 'true' });
    colourBar(svg, left, left + width);
    for (const t of yTicksGuess) {
      svg.append(s('line', { class: 'tick', x1: left - 4, x2: left, y1: py(t), y2: py(t) }),
        s('text', { class: 'axis', x: left - 6, y: py(t) + 4, 'text-anchor': 'end' }, show(t)));
    }
    for (const t of ticks(ex[0], ex[nx], Math.max(2, width / 75))) {
      svg.append(s('line', { class: 'tick', x1: px(t), x2: px(t), y1: top + height, y2: top + height + 4 }),
        s('text', { class: 'axis', x: px(t), y: top + height + 16, 'text-anchor': 'middle' }, show(t)));
    }
    svg.append(s('text', { class: 'axis title', x: left + width / 2, y: top + height + 34, 'text-anchor': 'middle' }, data.x_label),
      s('text', { class: 'axis title', transform: `translate(12 ${top + height / 2}) rotate(-90)`, 'text-anchor': 'middle' }, data.y_label));
    const inner = s('svg', { x: left, y: top, width, height, viewBox: `${left} ${top} ${width} ${height}` });
    if (contours) {
      for (const level of levels()) {
        inner.append(s('path', { class: lightness(viridis(share(level))) < 0.5 ? 'contour light' : 'contour', d: contour(drawn, X, Y, level, px, py) }));
      }
    }
    if (marked) {
      const paths = new Map();
      for (const mark of data.marks) if (mark.kind === 'path') paths.set(mark.name, [...(paths.get(mark.name) || []), mark]);
      for (const points of paths.values()) {
        points.sort((a, b) => a.place - b.place);
        const d = points.map((p, k) => `${k ? 'L' : 'M'}${px(p.x).toFixed(1)} ${py(p.y).toFixed(1)}`).join('');
        inner.append(s('path', { class: 'path halo', d }), s('path', { class: 'path', d }));
        for (const p of points) inner.append(s('circle', { class: 'step', cx: px(p.x), cy: py(p.y), r: points.length > 60 ? 1.2 : 2 }));
        const end = points[points.length - 1];
        inner.append(s('circle', { class: 'step end', cx: px(end.x), cy: py(end.y), r: 4 }));
      }
      for (const mark of marksOf()) if (GLYPHS[mark.kind]) inner.append(glyph(mark.kind, px(mark.x), py(mark.y)));
    }
    const cross = s('g', { class: 'cross' });
    inner.append(cross);
    svg.append(s('rect', { class: 'frame', x: left, y: top, width, height }), inner);
    frame.querySelectorAll(':scope > svg').forEach((old) => old.remove());
    frame.append(svg);
    plot = { px, py, ex, ey, left, top, width, height, cross };
    select(cell[0], cell[1]);
    drawLegend();
  }

  function drawLegend() {
    const kinds = marked ? [...new Set(marksOf().map((mark) => mark.kind))].filter((kind) => GLYPHS[kind]) : [];
    const items = kinds.map((kind) => h('li', {}, s('svg', { width: 18, height: 18, viewBox: '-9 -9 18 18', 'aria-hidden': 'true' }, glyph(kind, 0, 0)), ` ${GLYPH_NAMES[kind]}`));
    if (marked && data.marks.some((mark) => mark.kind === 'path')) {
      const line = s('svg', { width: 26, height: 12, 'aria-hidden': 'true' }, s('path', { class: 'path halo', d: 'M0 6H26' }), s('path', { class: 'path', d: 'M0 6H26' }));
      items.push(h('li', {}, line, ' path of a training run (its end ringed)'));
    }
    if (layer.state.includes(STATE.hole)) items.push(h('li', {}, h('span', { class: 'swatch hole' }, '\u2715'), ' hole: the value is not finite'));
    if (layer.state.includes(STATE.missing)) items.push(h('li', {}, h('span', { class: 'swatch hatched' }), ' not computed yet: drawn between the points that are'));
    legend.replaceChildren(...items);
  }

  // --- the chosen point ------------------------------------------------------------------------------

  function describe(i, j) {
    const k = i * ny + j, place = `${data.x_label} ${show(X[i], 6)}, ${data.y_label} ${show(Y[j], 6)}`;
    const value = layer.state[k] === STATE.missing ? `${layer.name} not computed yet`
      : layer.state[k] === STATE.hole ? `${layer.name} not finite: a hole`
        : `${layer.name} ${show(layer.z[k], 7)}${layer.se && layer.se[k] !== null ? ` \u00b1 ${show(layer.se[k], 2)}` : ''}${layer.state[k] === STATE.preview ? ' (preview)' : ''}`;
    return [value, place];
  }

  function slice(xs, value, label, at) {
    const log = colours === 'logarithmic';
    return { label: `slice along ${label}`, height: 190, still: true, cursor: xs[at], x: { label, low: xs[0], high: xs[xs.length - 1] }, y: { label: withUnit(layer.name), log, low: range[0], high: range[1] },
      lines: [{ name: '', colour: 'var(--ink)', marks: xs.length <= 60, faint: true, xs, ys: xs.map((_, n) => value(n)), info: () => [] }] };
  }

  function select(i, j) {
    cell = [i, j];
    const { px, py, ex, ey, left, top, width, height, cross } = plot;
    const x = px(X[i]), y = py(Y[j]);
    cross.replaceChildren(s('path', { class: 'halo', d: `M${left} ${y}H${left + width}M${x} ${top}V${top + height}` }),
      s('path', { d: `M${left} ${y}H${left + width}M${x} ${top}V${top + height}` }),
      s('rect', { x: px(ex[i]), y: py(ey[j + 1]), width: px(ex[i + 1]) - px(ex[i]), height: py(ey[j]) - py(ey[j + 1]) }));
    const [value, place] = describe(i, j);
    readout.replaceChildren(h('strong', {}, value), h('br', {}), place);
    const valueAt = (k) => (layer.state[k] === STATE.missing ? null : layer.z[k]);
    const specX = slice(X, (n) => valueAt(n * ny + j), data.x_label, i), specY = slice(Y, (n) => valueAt(i * ny + n), data.y_label, j);
    if (drawX) { drawX(specX); drawY(specY); } else { drawX = chart(sliceX, specX); drawY = chart(sliceY, specY); }
  }

  function point(event) {
    const box = frame.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    if (x < plot.left || x > plot.left + plot.width || y < plot.top || y > plot.top + plot.height) { hideTip(); return; }
    const inCell = (list, p, v) => { for (let k = 0; k + 1 < list.length; k++) { if ((p(list[k]) - v) * (p(list[k + 1]) - v) <= 0) return k; } return 0; };
    select(inCell(plot.ex, plot.px, x), inCell(plot.ey, plot.py, y));
    tell(event.clientX, event.clientY, x, y);
  }

  // The tip: the cell, and the marks near it.
  function tell(clientX, clientY, x, y) {
    const near = marked ? data.marks.filter((mark) => (mark.kind === 'path' || marksOf().includes(mark)) && Math.hypot(plot.px(mark.x) - x, plot.py(mark.y) - y) < 9).slice(0, 4) : [];
    showTip([...describe(cell[0], cell[1]), ...near.map((mark) => {
      const name = mark.kind === 'path' ? `run ${mark.name.slice(0, 8)}, step ${mark.place}` : `${GLYPH_NAMES[mark.kind] || mark.kind}${mark.kind === 'run' ? ` ${mark.name.slice(0, 8)}` : ''}`;
      return `${name}: (${show(mark.x)}, ${show(mark.y)})${mark.value !== null ? `, ${show(mark.value, 6)}` : ''}${mark.distance > 0 ? `, ${show(mark.distance, 3)} from the plane` : ''}`;
    })], clientX, clientY);
  }

  frame.addEventListener('pointermove', point);
  frame.addEventListener('pointerdown', point);
  frame.addEventListener('pointerleave', hideTip);
  frame.addEventListener('blur', hideTip);
  frame.addEventListener('keydown', (event) => {
    const move = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!move) return;
    event.preventDefault();
    select(Math.max(0, Math.min(nx - 1, cell[0] + move[0])), Math.max(0, Math.min(ny - 1, cell[1] + move[1])));
    const box = frame.getBoundingClientRect(), x = plot.px(X[cell[0]]), y = plot.py(Y[cell[1]]);
    tell(box.left + x, box.top + y, x, y);
  });

  // --- around it -------------------------------------------------------------------------------------

  const again = () => { prepare(); draw(); };
  const controls = h('div', { class: 'controls' },
    choice('Metric', layers.map((l, k) => [k, l.name]), 0, (k) => { layer = layers[k]; again(); drawSlices(); }),
    choice('Colours', [['linear', 'linear'], ['logarithmic', 'logarithmic'], ['by rank', 'by rank']], colours, (value) => { colours = value; again(); }),
    tick('contours', true, (on) => { contours = on; again(); }));
  if (data.marks.length) controls.append(tick('marks', true, (on) => { marked = on; again(); }));
  note.append(h('strong', {}, 'Surface. '), 'Point at the picture, or move with the arrow keys; the slices beside it go through the point.');
  if (data.stride[0] > 1 || data.stride[1] > 1) note.append(` Of the ${data.nx} \u00d7 ${data.ny} points this page has every ${nth(data.stride[0])} along x and every ${nth(data.stride[1])} along y.`);
  if (data.path_stride > 1) note.append(` Of a path it has every ${nth(data.path_stride)} point.`);
  view.append(controls, h('div', { class: 'map-and-slices' }, h('figure', {}, frame, legend, note), h('div', { class: 'slices' }, readout, sliceX, sliceY)));

  const stored = h('div', { class: 'stored' });
  let redrawStored = null;
  function drawSlices() {
    const list = data.slices.filter((one) => one.metric === layer.name || one.metric === '');
    const spec = { label: 'stored slices', height: 260, x: { label: 'distance from the minimum (units of v)' }, y: { label: withUnit(layer.name) },
      lines: list.map((one, k) => ({ name: one.name, colour: okabe(k), dash: DASHES[k % DASHES.length], xs: one.t, ys: one.value,
        info: (i) => [`slice along ${one.name}`, `t ${show(one.t[i])}: ${layer.name} ${show(one.value[i], 6)}`, `at (${show(one.x[i])}, ${show(one.y[i])})`] })) };
    stored.hidden = !list.length;
    stored.querySelector('ul').replaceChildren(...spec.lines.map((line) => legendItem(line.name, line.colour, line.dash)));
    if (redrawStored) redrawStored(spec); else redrawStored = chart(stored.querySelector('.place'), spec);
  }
  if (data.slices.length) {
    stored.append(h('figure', {}, h('div', { class: 'place' }), h('ul', { class: 'legend' }), h('figcaption', {}, h('strong', {}, 'Slices through the minimum.'))));
    view.append(stored);
    drawSlices();
  }
  if (data.hessian.some((place) => place.values.length > 2)) {
    const bars = h('div', {});
    view.append(h('figure', {}, bars, h('ul', { class: 'legend' }, ...data.hessian.map((place, k) => legendItem(place.place, okabe(k), DASHES[k]))),
      h('figcaption', {}, h('strong', {}, 'Spectrum of the Hessian '), 'of the loss by v, largest eigenvalue first.')));
    chart(bars, { label: 'eigenvalues of the Hessian', height: 240, x: { label: 'k', pad: true }, y: { label: 'eigenvalue (nats)' },
      lines: data.hessian.map((place, k) => ({ name: place.place, colour: okabe(k), dash: DASHES[k], marks: true, xs: place.values.map((_, n) => n + 1), ys: place.values,
        info: (n) => [`at the ${place.place}`, `eigenvalue ${n + 1}: ${show(place.values[n], 6)}`] })) });
  }
  redraws.add(draw);
  draw();
}
