// What every part draws with: elements, numbers, scales.

const DATA = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const metricOf = Object.fromEntries(DATA.metrics.map((metric) => [metric.key, metric]));
const methodOf = Object.fromEntries(DATA.methods.map((method) => [method.name, method]));
const pointOf = Object.fromEntries(DATA.points.map((point) => [point.name, point]));

function element(namespace, tag, attributes, children) {
  const made = document.createElementNS(namespace, tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}
const html = (tag, attributes = {}, ...children) => element("http://www.w3.org/1999/xhtml", tag, attributes, children);
const svg = (tag, attributes = {}, ...children) => element("http://www.w3.org/2000/svg", tag, attributes, children);

// Three significant digits, a true minus sign; as `number` in vocabulary.py.
function number(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size < 1e-12) return "0";
  const text = size < 0.001 || size >= 1e6
    ? value.toExponential(1).replace("e+", "e")
    : value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3);
  return text.replaceAll("-", "−");
}
const interval = ([mean, low, high]) =>
  low === null || low === undefined ? number(mean) : `${number(mean)} (${number(low)} to ${number(high)})`;

// A linear map with the round numbers that label it.
function scale([low, high], [start, end], count) {
  if (low === high) [low, high] = [low - 0.5, high + 0.5];
  const map = (value) => start + ((value - low) / (high - low)) * (end - start);
  const raw = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= raw * 0.999);
  map.ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) map.ticks.push(i * step);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  map.text = (value) => value.toFixed(digits).replace("-", "−").replace(/^−(0(\.0*)?)$/, "$1");
  map.invert = (place) => low + ((place - start) / (end - start)) * (high - low);
  return map;
}

function extent(values, pad) {
  const low = Math.min(...values), high = Math.max(...values);
  const margin = (high - low || Math.abs(high) || 1) * pad;
  return [low - margin, high + margin];
}

// Grid lines, tick labels and titles of a plot whose box is {left, right, top, bottom}.
function axes(x, y, box, titles) {
  const group = svg("g", { class: "axes", "aria-hidden": "true" });
  for (const tick of y.ticks) {
    group.append(
      svg("line", { x1: box.left, x2: box.right, y1: y(tick), y2: y(tick) }),
      svg("text", { x: box.left - 8, y: y(tick) + 4, "text-anchor": "end" }, y.text(tick)));
  }
  for (const tick of x.ticks) {
    group.append(
      svg("line", { x1: x(tick), x2: x(tick), y1: box.top, y2: box.bottom }),
      svg("text", { x: x(tick), y: box.bottom + 17, "text-anchor": "middle" }, x.text(tick)));
  }
  const middle = (box.top + box.bottom) / 2;
  if (titles) group.append(
    svg("text", { class: "title", x: (box.left + box.right) / 2, y: box.bottom + 40, "text-anchor": "middle" }, titles.x),
    svg("text", { class: "title", x: 13, y: middle, "text-anchor": "middle", transform: `rotate(-90 13 ${middle})` }, titles.y));
  return group;
}

const key = (method) =>
  svg("svg", { class: `key ${method.style}`, viewBox: "-8 -8 16 16", "aria-hidden": "true" }, svg("path", { d: method.shape }));
