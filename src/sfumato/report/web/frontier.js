// The frontier: any figure against any other, a mark per operating point.

const view = { x: null, y: null, scaled: false, hidden: new Set(), prompt: DATA.telling, pinned: null, budget: Infinity };
const isInterior = (point) => !["base", "tuned"].includes(point.method);
const isOver = (point) => (point.metrics.forwards?.[0] ?? 0) > view.budget + 1e-9;

// A point's figure on an axis as [mean, low, high], scaled if asked and possible; null if it was not measured.
function place(point, key) {
  const value = point.metrics[key];
  if (!value || value[0] === null || value[0] === undefined) return null;
  const [mean, low, high] = [value[0], value[1] ?? value[0], value[2] ?? value[0]];
  if (!isScaled(key)) return [mean, low, high];
  const [zero, one] = metricOf[key].scale;
  return [mean, low, high].map((v) => (v - zero) / (one - zero));
}
const isScaled = (key) => view.scaled && metricOf[key].scale !== null;
const axisTitle = (key) => metricOf[key].label + (isScaled(key) ? ", scaled" : "") + (metricOf[key].higher ? "" : " (less is better)");

// The points within the budget that none within it beats on both axes of the view.
function front(placed) {
  const sign = [view.x, view.y].map((key) => (metricOf[key].higher ? 1 : -1));
  const of = ({ x, y }) => [sign[0] * x[0], sign[1] * y[0]];
  const beats = (a, b) => of(a).every((v, i) => v >= of(b)[i]) && of(a).some((v, i) => v > of(b)[i]);
  const within = placed.filter(({ point }) => !isOver(point));
  return within.filter((b) => !within.some((a) => beats(a, b)));
}

function drawFrontier() {
  const holder = byId("frontier");
  const width = Math.max(280, holder.clientWidth), height = Math.max(340, Math.min(540, 0.72 * width));
  const box = { left: 58, right: width - 14, top: 14, bottom: height - 52 };
  const placed = DATA.points
    .map((point) => ({ point, x: place(point, view.x), y: place(point, view.y) }))
    .filter(({ x, y }) => x && y);
  const best = new Set(front(placed).map(({ point }) => point));
  const shown = placed.filter(({ point }) => !view.hidden.has(point.method));
  const ceiling = [view.x, view.y].map((key) => (isScaled(key) ? null : metricOf[key].ceiling));
  const domain = (axis, i) => extent([...shown.flatMap((p) => p[axis]), ...(ceiling[i] === null ? [] : [ceiling[i]])], 0.05);
  const x = scale(domain("x", 0), [box.left, box.right], width / 90), y = scale(domain("y", 1), [box.bottom, box.top], height / 60);
  for (const p of shown) Object.assign(p, { cx: x(p.x[0]), cy: y(p.y[0]), best: best.has(p.point) });

  const chart = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "group",
    "aria-label": `${axisTitle(view.y)} against ${axisTitle(view.x)}, ${shown.length} operating points` });
  chart.append(axes(x, y, box, { x: axisTitle(view.x), y: axisTitle(view.y) }));
  chart.append(dominated(shown.filter((p) => p.best), box), ...ceilings(ceiling, x, y, box));
  chart.append(...methodLines(shown), ...shown.map((p) => bars(p, x, y)));
  chart.append(...labels(shown, box, x, y), ...shown.sort((a, b) => a.best - b.best).map(mark));
  holder.replaceChildren(chart, html("div", { class: "tip", hidden: "", "aria-hidden": "true" }));

  const missing = DATA.points.filter((point) => !placed.some((p) => p.point === point)).map((point) => point.label);
  byId("unplotted").textContent = missing.length ? `Not measured on these axes: ${missing.join(", ")}.` : "";
}

// What the non-dominated points cover, as a soft ground; only where up and right is better.
function dominated(best, box) {
  if (!best.length || ![view.x, view.y].every((key) => metricOf[key].higher)) return svg("g");
  const steps = best.sort((a, b) => a.cx - b.cx).map(({ cx, cy }) => `V${cy}H${cx}`).join("");
  return svg("path", { class: "ground", d: `M${box.left} ${box.bottom}${steps}V${box.bottom}Z` });
}

function ceilings([cx, cy], x, y, box) {
  const line = (at, text) => svg("g", { class: "ceiling" }, svg("line", at), svg("text", text, "base against itself"));
  return [
    cx !== null && line({ x1: x(cx), x2: x(cx), y1: box.top, y2: box.bottom },
      { x: x(cx) - 6, y: box.bottom - 6, "text-anchor": "start", transform: `rotate(-90 ${x(cx) - 6} ${box.bottom - 6})` }),
    cy !== null && line({ x1: box.left, x2: box.right, y1: y(cy), y2: y(cy) }, { x: box.left + 6, y: y(cy) - 6 }),
  ].filter(Boolean);
}

function methodLines(shown) {
  return DATA.methods.filter((method) => !view.hidden.has(method.name)).map((method) => {
    const stops = method.points.map((name) => shown.find((p) => p.point.name === name)).filter(Boolean);
    const d = stops.map(({ cx, cy }, i) => `${i ? "L" : "M"}${cx} ${cy}`).join("");
    return svg("path", { class: `path ${method.style}`, d, "aria-hidden": "true" });
  });
}

const standing = ({ point, best }) => [methodOf[point.method].style, best ? "best" : "", isOver(point) ? "over" : ""].join(" ");

function bars(p, x, y) {
  const { x: [, x1, x2], y: [, y1, y2], cx, cy } = p;
  return svg("path", { class: `bars ${standing(p)}`, d: `M${x(x1)} ${cy}H${x(x2)}M${cx} ${y(y1)}V${y(y2)}`, "aria-hidden": "true" });
}

function mark(p) {
  const { point, cx, cy, best } = p;
  const group = svg("g", { class: `mark ${standing(p)}`, transform: `translate(${cx} ${cy})`,
    tabindex: 0, role: "button", "aria-pressed": point === view.pinned, "data-point": point.name,
    "aria-label": `${point.label}: ${[view.x, view.y].map((key) => `${metricOf[key].label} ${interval(point.metrics[key])}`).join(", ")}` +
      (best ? ", non-dominated" : "") + (isOver(point) ? ", over the budget" : "") });
  group.append(svg("circle", { class: "reach", r: 15 }));
  if (best) group.append(svg("circle", { class: "ring", r: 9.5 }));
  group.append(svg("path", { class: "shape", d: methodOf[point.method].shape }));
  for (const event of ["pointerenter", "focus"]) group.addEventListener(event, () => showTip(p));
  for (const event of ["pointerleave", "blur"]) group.addEventListener(event, hideTip);
  group.addEventListener("click", () => pin(point));
  group.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); pin(point); }
    if (event.key === "Escape") hideTip();
  });
  return group;
}

// Names beside their marks: the first free place around each, no name where there is none.
function labels(shown, box, x, y) {
  const pen = document.createElement("canvas").getContext("2d");
  pen.font = "12px system-ui, sans-serif";
  const taken = shown.map(({ cx, cy }) => [cx - 9, cy - 9, cx + 9, cy + 9]);
  const lines = shown.flatMap(({ x: [, x1, x2], y: [, y1, y2], cx, cy }) =>
    [[x(x1), cy - 1, x(x2), cy + 1], [cx - 1, y(y2), cx + 1, y(y1)]]);
  const free = ([x1, y1, x2, y2], boxes) => x1 >= box.left && x2 <= box.right && y1 >= box.top && y2 <= box.bottom &&
    !boxes.some(([a, b, c, d]) => a < x2 && x1 < c && b < y2 && y1 < d);
  return [...shown].sort((a, b) => b.best - a.best).map((p) => {
    const { point, cx, cy } = p, w = pen.measureText(point.label).width + 4;
    const around = [[12, -14], [12, 0], [-12 - w, 0], [-12 - w, -14], [-w / 2, -24], [-w / 2, 10], [8, -24], [8, 10], [-8 - w, -24], [-8 - w, 10]]
      .map(([dx, dy]) => [cx + dx, cy + dy, cx + dx + w, cy + dy + 14]);
    const spot = around.find((b) => free(b, [...taken, ...lines])) ?? around.find((b) => free(b, taken));
    if (!spot) return null;
    taken.push(spot);
    return svg("text", { class: `name ${standing(p)}`, x: spot[0] + 2, y: spot[1] + 11, "aria-hidden": "true" }, point.label);
  }).filter(Boolean);
}

function showTip({ point, cx, cy }) {
  const holder = byId("frontier"), tip = holder.querySelector(".tip");
  const pictures = DATA.prompts.length ? tiles(point, view.prompt, { most: 8 }) : null;
  tip.replaceChildren(
    html("strong", {}, point.label),
    ...[view.x, view.y].map((key) => html("span", {}, `${metricOf[key].label} ${interval(point.metrics[key])}`)),
    ...(pictures ? [pictures, html("small", {}, DATA.prompts[view.prompt].text)] : []));
  if (pictures) { whenVisible.unobserve(pictures); fill(pictures); }
  tip.hidden = false;
  const left = Math.min(Math.max(0, cx - tip.offsetWidth / 2), holder.clientWidth - tip.offsetWidth);
  const above = cy - tip.offsetHeight - 16;
  tip.style.transform = `translate(${left}px, ${above > -60 ? above : cy + 18}px)`;
}

function hideTip() {
  byId("frontier").querySelector(".tip").hidden = true;
}

// Every metric in the groups of the vocabulary, as the choices of an axis.
function metricOptions() {
  const groups = new Map();
  for (const { key, label, group } of DATA.metrics) {
    groups.set(group, [...(groups.get(group) ?? []), html("option", { value: key }, label)]);
  }
  return [...groups].map(([label, options]) => html("optgroup", { label }, ...options));
}

// Equal compute: points that cost more than the budget fade, and the front is that of the rest.
function startBudget() {
  const costs = [...new Set(DATA.points.map((point) => point.metrics.forwards?.[0]).filter((cost) => cost > 0))].sort((a, b) => a - b);
  const slider = byId("budget");
  if (costs.length < 2) { slider.closest("label").remove(); return; }
  slider.max = slider.value = costs.length - 1;
  const show = () => {
    const budget = costs[slider.value];
    view.budget = Number(slider.value) === costs.length - 1 ? Infinity : budget;
    byId("within").textContent = view.budget === Infinity ? "any" : `≤ ${number(budget)}`;
    slider.setAttribute("aria-valuetext", view.budget === Infinity ? "any number of forwards" : `at most ${number(budget)} forwards per image`);
    byId("equal-compute").textContent = equalCompute();
  };
  slider.addEventListener("input", () => { show(); drawFrontier(); });
  show();
}

function equalCompute() {
  const entry = DATA.equalCompute.filter(({ budget }) => budget <= view.budget + 1e-9).at(-1);
  if (view.budget === Infinity || !entry) return "";
  const volumes = entry.methods.filter(({ hypervolume }) => hypervolume)
    .map(({ name, hypervolume: { mean, low, high } }) => `${name} ${interval([mean, low, high])}`);
  return volumes.length ? `Hypervolume within this budget: ${volumes.join(", ")}.` : "Within this budget there are base and tuned only.";
}

function startFrontier() {
  Object.assign(view, { x: DATA.axes.reward, y: DATA.axes.diversity });
  for (const axis of ["x", "y"]) {
    const chooser = byId(`axis-${axis}`);
    chooser.append(...metricOptions());
    chooser.value = view[axis];
    chooser.addEventListener("change", () => { view[axis] = chooser.value; drawFrontier(); });
  }
  byId("scaled").addEventListener("change", (event) => { view.scaled = event.target.checked; drawFrontier(); });
  const chooser = byId("prompt");
  chooser.append(...promptOptions());
  chooser.value = view.prompt;
  chooser.addEventListener("change", () => { view.prompt = Number(chooser.value); });
  for (const button of byId("legend").querySelectorAll("button")) {
    button.addEventListener("click", () => {
      const { method } = button.dataset;
      if (!view.hidden.delete(method)) view.hidden.add(method);
      button.setAttribute("aria-pressed", !view.hidden.has(method));
      drawFrontier();
    });
  }
  startBudget();
  drawFrontier();
  const holder = byId("frontier");
  let width = holder.clientWidth;
  new ResizeObserver(() => {
    if (holder.clientWidth !== width) { width = holder.clientWidth; drawFrontier(); }
  }).observe(holder);
  pin(pointOf[DATA.best] ?? null);
}
