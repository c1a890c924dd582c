// The frontier: any figure against any other, a mark per operating point.

const view = { x: null, y: null, scaled: false, hidden: new Set(), prompt: DATA.telling, pinned: null };
const isInterior = (point) => !["base", "tuned"].includes(point.method);

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

// The points that none beats on both axes of the view.
function front(placed) {
  const sign = [view.x, view.y].map((key) => (metricOf[key].higher ? 1 : -1));
  const of = ({ x, y }) => [sign[0] * x[0], sign[1] * y[0]];
  const beats = (a, b) => of(a).every((v, i) => v >= of(b)[i]) && of(a).some((v, i) => v > of(b)[i]);
  return placed.filter((b) => !placed.some((a) => beats(a, b)));
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

function bars({ point, x: [, x1, x2], y: [, y1, y2], cx, cy, best }, x, y) {
  return svg("path", { class: `bars ${methodOf[point.method].style} ${best ? "best" : ""}`,
    d: `M${x(x1)} ${cy}H${x(x2)}M${cx} ${y(y1)}V${y(y2)}`, "aria-hidden": "true" });
}

function mark(p) {
  const { point, cx, cy, best } = p, { style, shape } = methodOf[point.method];
  const group = svg("g", { class: `mark ${style} ${best ? "best" : ""}`, transform: `translate(${cx} ${cy})`,
    tabindex: 0, role: "button", "aria-pressed": point === view.pinned, "data-point": point.name,
    "aria-label": `${point.label}: ${[view.x, view.y].map((key) => `${metricOf[key].label} ${interval(point.metrics[key])}`).join(", ")}` +
      (best ? ", non-dominated" : "") });
  group.append(svg("circle", { class: "reach", r: 15 }));
  if (best) group.append(svg("circle", { class: "ring", r: 9.5 }));
  group.append(svg("path", { class: "shape", d: shape }));
  for (const event of ["pointerenter", "focus"]) group.addEventListener(event, () => showTip(p));
  for (const event of ["pointerleave", "blur"]) group.addEventListener(event, hideTip);
  group.addEventListener("click", () => pin(point));
  group.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") { event.preventDefault(); pin(point); }
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
  return [...shown].sort((a, b) => b.best - a.best).map(({ point, cx, cy, best }) => {
    const w = pen.measureText(point.label).width + 4;
    const around = [[12, -14], [12, 0], [-12 - w, 0], [-12 - w, -14], [-w / 2, -24], [-w / 2, 10], [8, -24], [8, 10], [-8 - w, -24], [-8 - w, 10]]
      .map(([dx, dy]) => [cx + dx, cy + dy, cx + dx + w, cy + dy + 14]);
    const spot = around.find((b) => free(b, [...taken, ...lines])) ?? around.find((b) => free(b, taken));
    if (!spot) return null;
    taken.push(spot);
    return svg("text", { class: `name ${best ? "best" : ""}`, x: spot[0] + 2, y: spot[1] + 11, "aria-hidden": "true" }, point.label);
  }).filter(Boolean);
}

function showTip({ point, cx, cy }) {
  const holder = byId("frontier"), tip = holder.querySelector(".tip");
  const pictures = DATA.prompts.length ? tiles(point, view.prompt, 8) : null;
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

// Fill the panel with a point's figures, definition and images of every prompt.
function pin(point) {
  view.pinned = point;
  for (const mark of document.querySelectorAll("#frontier .mark")) {
    mark.setAttribute("aria-pressed", mark.dataset.point === point?.name);
  }
  const panel = byId("panel");
  panel.replaceChildren();
  if (!point) { panel.append(html("p", { class: "note" }, "Click a mark to keep its images and figures here.")); return; }
  const close = html("button", { type: "button", class: "close", "aria-label": "Close" }, "×");
  close.addEventListener("click", () => pin(null));
  panel.append(
    html("h3", {}, key(methodOf[point.method]), point.label, close),
    point.name === DATA.best ? html("p", { class: "note" }, "The best balance of reward kept and diversity given back.") : "",
    figuresOf(point, [DATA.axes.reward, DATA.axes.diversity]),
    html("details", {}, html("summary", {}, "All its figures"), figuresOf(point, DATA.metrics.slice(2).map(({ key }) => key))),
    html("details", {}, html("summary", {}, "Exact definition"), html("pre", {}, JSON.stringify(point.definition, null, 2))),
    ...DATA.prompts.map((_, prompt) => picturesOf(point, prompt)).filter(Boolean));
  panel.scrollTop = 0;
}

function figuresOf(point, keys) {
  const rows = keys.filter((key) => point.metrics[key]).map((key) => {
    const difference = isInterior(point) ? point.versusTuned[key] : null;
    return html("tr", {}, html("th", { scope: "row" }, metricOf[key].label), html("td", {}, interval(point.metrics[key]),
      difference ? html("small", {}, `${difference[0] > 0 ? "+" : ""}${interval(difference)}`, html("br"), "against tuned") : null));
  });
  return html("table", {}, html("tbody", {}, ...rows));
}

function picturesOf(point, prompt) {
  const pictures = tiles(point, prompt);
  if (!pictures) return null;
  const figures = [DATA.axes.reward, DATA.axes.diversity].map((key) => [metricOf[key]?.label, point.perPrompt[key]?.[prompt]])
    .filter(([, value]) => value !== null && value !== undefined)
    .map(([label, value]) => `${label} ${number(value)}`).join(" · ");
  return html("figure", {}, html("figcaption", {}, html("b", {}, DATA.prompts[prompt].text), html("small", {}, figures)), pictures);
}

function startFrontier() {
  Object.assign(view, { x: DATA.axes.reward, y: DATA.axes.diversity });
  for (const axis of ["x", "y"]) {
    const chooser = byId(`axis-${axis}`);
    chooser.append(...DATA.metrics.map((metric) => html("option", { value: metric.key }, metric.label)));
    chooser.value = view[axis];
    chooser.addEventListener("change", () => { view[axis] = chooser.value; drawFrontier(); });
  }
  byId("scaled").addEventListener("change", (event) => { view.scaled = event.target.checked; drawFrontier(); });
  const chooser = byId("prompt");
  chooser.append(...DATA.prompts.map(({ text }, i) => html("option", { value: i }, text)));
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
  drawFrontier();
  const holder = byId("frontier");
  let width = holder.clientWidth;
  new ResizeObserver(() => {
    if (holder.clientWidth !== width) { width = holder.clientWidth; drawFrontier(); }
  }).observe(holder);
  pin(pointOf[DATA.best] ?? null);
}
