// A chart of lines, bands and points with errors, in SVG: hover, touch and keyboard name the nearest point.

// Units of what is stored, for axes.
const UNITS = {
  loss: 'nats per token', nll: 'nats per token', entropy: 'nats per token', kl: 'nats per token', step_time: 's',
  reward: 'mean', accuracy: 'share', reward_std: 'standard deviation', num_tokens: 'tokens',
  'completions/clipped_ratio': 'share', frac_reward_zero_std: 'share of groups',
};
function withUnit(key) {
  const unit = UNITS[key] || (/length$/.test(key) ? 'tokens' : null);
  return unit ? `${key} (${unit})` : key;
}

function scale(low, high, from, to, log) {
  const f = log ? Math.log10 : (v) => v, a = f(low), b = f(high);
  return (v) => from + (b > a ? (f(v) - a) / (b - a) : 0.5) * (to - from);
}

// The range of values with a little room; log: all above 0.
function widen(low, high, log) {
  if (!(high >= low)) return log ? [0.1, 1] : [0, 1];
  if (log) return low === high ? [low / 2, high * 2] : [low / (high / low) ** 0.04, high * (high / low) ** 0.04];
  const room = high > low ? (high - low) * 0.05 : Math.abs(low) * 0.1 || 1;
  return [low - room, high + room];
}

// spec: {label, height, x, y: {label, log, low, high (fixed)}, lines: [...], levels: [...]}
// line: {name, colour, dash, faint, xs, ys (null: a gap), low, high (a band), errors, marks, pointsOnly, shift (pixels), info(i)}
// level: {y, low, high, name}: a horizontal line with its band.
// host's chart is drawn anew by the function that comes back.
function chart(host, first) {
  let spec = first, plot = null, at = null; // at: [line, point] that is shown
  const frame = h('div', { class: 'chart', tabindex: 0, role: 'group', 'aria-label': spec.label });
  host.append(frame);

  function draw() {
    const width = Math.max(240, frame.clientWidth || 600), height = spec.height || 320;
    const lines = spec.lines, xAxis = spec.x, yAxis = spec.y;
    const usable = (v, axis) => v !== null && Number.isFinite(v) && (!axis.log || v > 0);
    let xl = Infinity, xh = -Infinity, yl = Infinity, yh = -Infinity;
    const grow = (v) => { if (usable(v, yAxis)) { yl = Math.min(yl, v); yh = Math.max(yh, v); } };
    for (const line of lines) {
      for (let i = 0; i < line.xs.length; i++) {
        if (!usable(line.xs[i], xAxis) || !usable(line.ys[i], yAxis)) continue;
        xl = Math.min(xl, line.xs[i]); xh = Math.max(xh, line.xs[i]);
        grow(line.ys[i]);
        if (line.low) { grow(line.low[i]); grow(line.high[i]); }
        if (line.errors && line.errors[i]) { grow(line.ys[i] - line.errors[i]); grow(line.ys[i] + line.errors[i]); }
      }
    }
    for (const level of spec.levels || []) { grow(level.low); grow(level.high); grow(level.y); }
    if (yAxis.low !== undefined) { yl = yAxis.low; yh = yAxis.high; }
    if (xAxis.low !== undefined) { xl = xAxis.low; xh = xAxis.high; }
    [yl, yh] = widen(yl, yh, yAxis.log);
    if (xAxis.pad || !(xh > xl)) [xl, xh] = widen(xl, xh, xAxis.log);
    const yTicks = (yAxis.log ? logTicks : ticks)(yl, yh, Math.max(3, height / 55));
    const left = 26 + 6.6 * Math.max(...yTicks.map((t) => show(t).length)), right = 12, top = 10, bottom = 42;
    const xTicks = (xAxis.log ? logTicks : ticks)(xl, xh, Math.max(2, (width - left) / 75));
    const px = scale(xl, xh, left, width - right, xAxis.log), py = scale(yl, yh, height - bottom, top, yAxis.log);
    const svg = s('svg', { width, height, viewBox: `0 0 ${width} ${height}`, 'aria-hidden': 'true' });
    for (const t of yTicks) {
      svg.append(s('line', { class: 'grid', x1: left, x2: width - right, y1: py(t), y2: py(t) }),
        s('text', { class: 'axis', x: left - 6, y: py(t) + 4, 'text-anchor': 'end' }, show(t)));
    }
    for (const t of xTicks) {
      svg.append(s('line', { class: 'grid', x1: px(t), x2: px(t), y1: top, y2: height - bottom }),
        s('text', { class: 'axis', x: px(t), y: height - bottom + 16, 'text-anchor': 'middle' }, show(t)));
    }
    svg.append(s('text', { class: 'axis title', x: (left + width - right) / 2, y: height - 6, 'text-anchor': 'middle' }, xAxis.label),
      s('text', { class: 'axis title', transform: `translate(12 ${(top + height - bottom) / 2}) rotate(-90)`, 'text-anchor': 'middle' }, yAxis.label));
    const inside = (v) => Math.max(top - 2, Math.min(height - bottom + 2, v));
    for (const level of spec.levels || []) {
      if (level.low !== undefined) {
        svg.append(s('rect', { class: 'level-band', x: left, width: width - right - left, y: inside(py(level.high)), height: Math.max(0, inside(py(level.low)) - inside(py(level.high))) }));
      }
      svg.append(s('line', { class: 'level', x1: left, x2: width - right, y1: py(level.y), y2: py(level.y) }),
        s('text', { class: 'axis level-name', x: width - right - 4, y: py(level.y) - 5, 'text-anchor': 'end' }, level.name));
    }
    const path = (line, values) => {
      let d = '', pen = false;
      for (let i = 0; i < line.xs.length; i++) {
        const ok = usable(line.xs[i], xAxis) && usable(values[i], yAxis);
        if (ok) d += `${pen ? 'L' : 'M'}${px(line.xs[i]).toFixed(1)} ${py(values[i]).toFixed(1)}`;
        pen = ok;
      }
      return d;
    };
    const paint = (element, colour, property) => { element.style[property] = colour; return element; };
    for (const line of lines) {
      if (line.low) {
        const there = line.xs.map((_, i) => i).filter((i) => usable(line.low[i], yAxis) && usable(line.high[i], yAxis) && usable(line.xs[i], xAxis));
        const d = there.map((i, k) => `${k ? 'L' : 'M'}${px(line.xs[i]).toFixed(1)} ${py(line.high[i]).toFixed(1)}`).join('') +
          there.reverse().map((i) => `L${px(line.xs[i]).toFixed(1)} ${py(line.low[i]).toFixed(1)}`).join('');
        if (d) svg.append(paint(s('path', { class: 'band', d: `${d}Z` }), line.colour, 'fill'));
      }
    }
    const crowded = lines.reduce((n, line) => n + (line.marks ? line.xs.length : 0), 0) > 200;
    for (const line of lines) {
      if (!line.pointsOnly) {
        svg.append(paint(s('path', { class: line.faint ? 'line faint' : 'line', d: path(line, line.ys), 'stroke-dasharray': line.dash }), line.colour, 'stroke'));
      }
      for (let i = 0; i < line.xs.length && line.marks; i++) {
        if (!usable(line.xs[i], xAxis) || !usable(line.ys[i], yAxis)) continue;
        const x = px(line.xs[i]) + (line.shift ? line.shift[i] : 0), y = py(line.ys[i]), error = line.errors && line.errors[i];
        if (error) {
          const a = py(line.ys[i] + error), b = usable(line.ys[i] - error, yAxis) ? py(line.ys[i] - error) : height - bottom;
          svg.append(paint(s('path', { class: crowded ? 'error crowded' : 'error', d: `M${x} ${a}V${b}M${x - 4} ${a}h8M${x - 4} ${b}h8` }), line.colour, 'stroke'));
        }
        svg.append(paint(s('circle', { class: 'mark', cx: x, cy: y, r: line.faint || crowded ? 2.5 : 4 }), line.colour, 'fill'));
      }
    }
    svg.append(...svg.querySelectorAll('.level-name'));
    const focus = s('g', { class: 'focus' });
    svg.append(focus);
    frame.replaceChildren(svg);
    plot = { px, py, usable, focus, svg, width, left, right, top, height, bottom, path };
    if (spec.cursor !== undefined && usable(spec.cursor, xAxis)) {
      svg.append(s('line', { class: 'cursor', x1: px(spec.cursor), x2: px(spec.cursor), y1: top, y2: height - bottom }));
    }
  }

  // Marks the point and says what it is.
  function choose(next, speak) {
    at = next;
    plot.focus.replaceChildren();
    if (!at) { if (speak) hideTip(); return; }
    const [k, i] = at, line = spec.lines[k], x = plot.px(line.xs[i]) + (line.shift ? line.shift[i] : 0), y = plot.py(line.ys[i]);
    const over = s('path', { class: 'line chosen', d: line.pointsOnly ? '' : plot.path(line, line.ys), 'stroke-dasharray': line.dash });
    over.style.stroke = line.colour;
    const dot = s('circle', { class: 'dot', cx: x, cy: y, r: 5 });
    dot.style.fill = line.colour;
    plot.focus.append(over, dot);
    if (speak) {
      const box = plot.svg.getBoundingClientRect();
      showTip(line.info(i), box.left + x, box.top + y);
    }
  }

  function nearest(clientX, clientY) {
    const box = plot.svg.getBoundingClientRect(), x = clientX - box.left, y = clientY - box.top;
    let best = null, closest = 60 * 60;
    spec.lines.forEach((line, k) => {
      for (let i = 0; i < line.xs.length; i++) {
        if (!plot.usable(line.xs[i], spec.x) || !plot.usable(line.ys[i], spec.y)) continue;
        const dx = plot.px(line.xs[i]) + (line.shift ? line.shift[i] : 0) - x;
        if (dx > 60 || dx < -60) continue;
        const dy = plot.py(line.ys[i]) - y, distance = dx * dx + dy * dy + (line.faint ? 9 : 0);
        if (distance < closest) { closest = distance; best = [k, i]; }
      }
    });
    return best;
  }

  function step(event) {
    const lines = spec.lines, moves = { ArrowRight: 1, ArrowLeft: -1, ArrowUp: -1, ArrowDown: 1 };
    if (!(event.key in moves) || !lines.length) return;
    event.preventDefault();
    const there = (k, i) => plot.usable(lines[k].xs[i], spec.x) && plot.usable(lines[k].ys[i], spec.y);
    const firstOf = (k) => lines[k].xs.findIndex((_, i) => there(k, i));
    let [k, i] = at || [0, -1];
    if (!at) i = firstOf(0);
    else if (event.key === 'ArrowRight' || event.key === 'ArrowLeft') {
      let j = i + moves[event.key];
      while (j >= 0 && j < lines[k].xs.length && !there(k, j)) j += moves[event.key];
      i = j >= 0 && j < lines[k].xs.length ? j : i;
    } else {
      const x = lines[k].xs[i];
      k = (k + moves[event.key] + lines.length) % lines.length;
      i = firstOf(k);
      lines[k].xs.forEach((v, j) => { if (there(k, j) && Math.abs(v - x) < Math.abs(lines[k].xs[i] - x)) i = j; });
    }
    choose(i >= 0 ? [k, i] : null, true);
  }

  if (!spec.still) {
    frame.addEventListener('pointermove', (event) => choose(nearest(event.clientX, event.clientY), true));
    frame.addEventListener('pointerdown', (event) => choose(nearest(event.clientX, event.clientY), true));
    frame.addEventListener('pointerleave', (event) => { if (event.pointerType === 'mouse') choose(null, true); });
    frame.addEventListener('keydown', step);
    frame.addEventListener('blur', () => choose(null, true));
  } else {
    frame.removeAttribute('tabindex');
  }
  const again = () => { at = null; draw(); };
  redraws.add(again);
  draw();
  return (next) => { spec = next; again(); };
}
