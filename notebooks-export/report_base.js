'use strict';
// Small tools of the report: elements, numbers, colours, ticks, the tip, the theme.

const SVG = document.getElementById('namespace').namespaceURI;
const MINUS = '\u2212';

function fill(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? '' : value);
  }
  element.append(...children);
  return element;
}
const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const s = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

// A number to `digits` significant digits, as short as it can be; a dash where there is none.
function show(value, digits = 4) {
  if (value === null || value === undefined || !Number.isFinite(value)) return '\u2013';
  if (value === 0) return '0';
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e6) return String(value).replace('-', MINUS);
  let text = size < 1e-3 || size >= 1e6 ? value.toExponential(digits - 1) : value.toPrecision(digits);
  text = text.includes('e') && size >= 1e-3 && size < 1e6 ? String(Number(text)) : text;
  return text.replace(/(\.\d*?)0+(?=e|$)/, '$1').replace(/\.(?=e|$)/, '').replace('e+', 'e').replace(/-/g, MINUS);
}
// To two significant digits of the standard error.
function estimate(value, error) {
  if (value === null || !Number.isFinite(value) || !(error > 0)) return show(value);
  return value.toFixed(Math.min(12, Math.max(0, 1 - Math.floor(Math.log10(error))))).replace('-', MINUS);
}
const showP = (p) => (p !== null && p < 0.001 ? p.toExponential(1).replace('-', MINUS) : show(p, 2));

const finite = (values) => values.filter((v) => v !== null && Number.isFinite(v));
const smallest = (values) => values.reduce((a, b) => (b !== null && b < a ? b : a), Infinity);
const largest = (values) => values.reduce((a, b) => (b !== null && b > a ? b : a), -Infinity);

// Round numbers between low and high, about n of them.
function ticks(low, high, n) {
  const span = high - low;
  if (!(span > 0)) return [low];
  const rough = span / Math.max(1, n), power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 5].find((m) => m * power >= rough * 0.75) || 10);
  const list = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * span; k++) list.push(Number((k * step).toPrecision(12)));
  return list;
}

// Powers of ten, with 2 and 5 or 3 between where there is room for about n.
function logTicks(low, high, n) {
  const from = Math.floor(Math.log10(low)), to = Math.ceil(Math.log10(high));
  const inside = (within, stride) => {
    const list = [];
    for (let k = from; k <= to; k += stride) for (const m of within) list.push(Number(`${m}e${k}`));
    return list.filter((v) => v >= low * 0.999 && v <= high * 1.001);
  };
  for (const within of [[1, 2, 5], [1, 3], [1]]) {
    const list = inside(within, 1);
    if (list.length >= 2 && list.length <= Math.max(2, n)) return list;
  }
  const decades = inside([1], Math.max(1, Math.ceil((to - from) / Math.max(1, n))));
  return decades.length >= 2 ? decades : ticks(low, high, n);
}

// Viridis (van der Walt and Smith 2015) at 17 places: its lightness rises evenly, also in grey.
const VIRIDIS = ['440154', '481a6c', '472f7d', '414487', '39568c', '31688e', '2a788e', '23888e', '1f988b',
  '22a884', '35b779', '54c568', '7ad151', 'a5db36', 'd2e21b', 'f0e51c', 'fde725']
  .map((hex) => [0, 2, 4].map((k) => parseInt(hex.slice(k, k + 2), 16)));
function viridis(share) {
  const at = Math.min(1, Math.max(0, share)) * (VIRIDIS.length - 1), k = Math.min(VIRIDIS.length - 2, Math.floor(at));
  return VIRIDIS[k].map((c, i) => Math.round(c + (at - k) * (VIRIDIS[k + 1][i] - c)));
}
const rgb = (colour) => `rgb(${colour.join(',')})`;
const lightness = ([r, g, b]) => (0.2126 * r + 0.7152 * g + 0.0722 * b) / 255;

// --- theme: the system's, or the reader's own, remembered where that is possible -------------------

const themes = ['automatic', 'light', 'dark'];
const redraws = new Set(); // what to draw again when the theme or the width changes
let theme = 'automatic';
try { theme = localStorage.getItem('tinylora-report-theme') || theme; } catch (_) { /* not here */ }
if (!themes.includes(theme)) theme = 'automatic';
const prefersDark = matchMedia('(prefers-color-scheme: dark)');
const isDark = () => (document.documentElement.dataset.theme || (prefersDark.matches ? 'dark' : 'light')) === 'dark';

function applyTheme(name) {
  if (name === 'automatic') delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  redraws.forEach((draw) => draw());
}

function startTheme() {
  const button = document.getElementById('theme');
  button.hidden = false;
  const label = () => { button.textContent = `Theme: ${theme}`; };
  button.addEventListener('click', () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    try { localStorage.setItem('tinylora-report-theme', theme); } catch (_) { /* forgotten, then */ }
    label();
    applyTheme(theme);
  });
  prefersDark.addEventListener('change', () => applyTheme(theme));
  addEventListener('beforeprint', () => applyTheme('light'));
  addEventListener('afterprint', () => applyTheme(theme));
  label();
  applyTheme(theme);
}

// --- the tip: one for the page, beside the pointer or the point that the keyboard has chosen ---------

const tip = document.getElementById('tip');
function showTip(lines, x, y) {
  tip.replaceChildren(...lines.map((line, i) => h(i ? 'div' : 'strong', {}, line)));
  tip.hidden = false;
  const box = tip.getBoundingClientRect(), edge = document.documentElement.clientWidth;
  const left = x + 14 + box.width > edge ? x - 14 - box.width : x + 14;
  const top = y - box.height - 12 < 0 ? y + 18 : y - box.height - 12;
  tip.style.left = `${Math.max(4, Math.min(left, edge - box.width - 4))}px`;
  tip.style.top = `${top}px`;
}
function hideTip() { tip.hidden = true; }
addEventListener('scroll', hideTip, { passive: true });
addEventListener('keydown', (event) => { if (event.key === 'Escape') hideTip(); });

// A choice with its label. options: [value, text]; changed(value).
function choice(label, options, value, changed) {
  const select = h('select', { onchange: () => changed(select.value) },
    ...options.map(([v, text]) => h('option', { value: v, selected: String(v) === String(value) }, text)));
  return h('label', {}, `${label} `, select);
}
function tick(label, checked, changed) {
  const box = h('input', { type: 'checkbox', checked, onchange: () => changed(box.checked) });
  return h('label', { class: 'tick' }, box, ` ${label}`);
}
