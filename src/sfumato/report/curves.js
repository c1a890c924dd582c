// Training curves as small multiples that share one pointer, and the contact sheets.

const LINES = ["tuned", "m2", "m1", "m3", "m0", "m4", "m5"];
const PLOT = { width: 300, height: 200, right: 292, top: 10, bottom: 170 };
const plots = [];

const points = (training, key) => (training.series[key] ?? [])
  .map((value, i) => [training.updates[i], value]).filter(([, value]) => value !== null && value !== undefined);

// One figure over the updates, for every training: `name` as batches saw it, "eval/name" on held-out prompts.
function plot(name) {
  const lines = DATA.trainings.flatMap((training, i) => [name, `eval/${name}`].map((key) => ({
    training: training.name, style: LINES[i % LINES.length], held: key !== name, points: points(training, key) })))
    .filter((line) => line.points.length);
  const all = lines.flatMap((line) => line.points);
  const y = scale(extent(all.map(([, v]) => v), 0.06), [PLOT.bottom, PLOT.top], 4);
  const box = { ...PLOT, left: 14 + 7 * Math.max(...y.ticks.map((tick) => y.text(tick).length)) };
  const updates = DATA.trainings.flatMap((training) => training.updates);
  const x = scale([Math.min(...updates), Math.max(...updates)], [box.left, box.right], 4);
  const alone = !lines.some((line) => line.held);
  const chart = svg("svg", { viewBox: `0 0 ${PLOT.width} ${PLOT.height}`, role: "img", "aria-label": summary(name, lines) },
    axes(x, y, box));
  for (const { style, held, points } of lines) {
    const d = points.map(([u, v], i) => `${i ? "L" : "M"}${x(u).toFixed(1)} ${y(v).toFixed(1)}`).join("");
    chart.append(svg("path", { class: `curve ${style} ${held || alone ? "held" : ""}`, d }));
    if (points.length === 1) chart.append(svg("circle", { class: `dot ${style}`, cx: x(points[0][0]), cy: y(points[0][1]), r: 3 }));
  }
  const cursor = svg("line", { class: "cursor", y1: PLOT.top, y2: PLOT.bottom, visibility: "hidden" });
  chart.append(cursor);
  const readout = html("output", { "aria-hidden": "true" });
  plots.push({ show: (update) => {
    cursor.setAttribute("visibility", update === null ? "hidden" : "visible");
    if (update !== null) { cursor.setAttribute("x1", x(update)); cursor.setAttribute("x2", x(update)); }
    readout.textContent = update === null ? "" : reading(lines, update);
  } });
  chart.addEventListener("pointermove", (event) => {
    const { left, width } = chart.getBoundingClientRect();
    const update = Math.round(x.invert(((event.clientX - left) / width) * PLOT.width));
    const inside = update >= x.invert(box.left) && update <= x.invert(box.right);
    for (const each of plots) each.show(inside ? update : null);
  });
  chart.addEventListener("pointerleave", () => plots.forEach((each) => each.show(null)));
  return html("figure", {}, html("figcaption", {}, html("b", {}, DATA.labels[name]), readout), chart);
}

function reading(lines, update) {
  const nearest = (points) => points.reduce((a, b) => (Math.abs(b[0] - update) < Math.abs(a[0] - update) ? b : a));
  const shown = lines.filter((line) => line.held || !lines.some((other) => other.held));
  return `update ${update}: ` + shown.map((line) => `${line.training} ${number(nearest(line.points)[1])}`).join(", ");
}

function summary(name, lines) {
  const told = lines.map((line) => `${line.training}${line.held ? " on held-out prompts" : ""} ` +
    `from ${number(line.points[0][1])} to ${number(line.points.at(-1)[1])}`);
  return `${DATA.labels[name]} over the updates: ${told.join("; ")}`;
}

function startCurves() {
  const keys = new Set(DATA.trainings.flatMap((training) => Object.keys(training.series)));
  const held = [...keys].filter((key) => key.startsWith("eval/")).map((key) => key.slice(5));
  const order = ["reward", "gold", "vendi", "distance"];
  const first = [...new Set([...order.filter((key) => keys.has(key) || held.includes(key)), ...held])];
  const rest = [...keys].filter((key) => !key.startsWith("eval/") && !first.includes(key));
  byId("curves").append(...first.map(plot));
  byId("more-curves").append(...rest.map(plot));
  byId("trainings").append(...DATA.trainings.map(({ name }, i) =>
    html("li", {}, html("span", { class: `line ${LINES[i % LINES.length]}` }), name)));
  DATA.trainings.forEach((training, i) => training.sheets.length && byId("sheets").append(sheet(training, i)));
}

// A slider through the contact sheets of a training.
function sheet(training, i) {
  const picture = html("img", { loading: "lazy" });
  const text = html("output");
  const slider = html("input", { type: "range", min: 0, max: training.sheets.length - 1, "aria-label": `Update of training ${training.name}` });
  const show = () => {
    picture.src = pictureUrl(`sheet-${i}-${slider.value}`);
    picture.alt = `Samples of training ${training.name} after update ${training.sheets[slider.value]}`;
    text.textContent = `${training.name}, update ${training.sheets[slider.value]}`;
  };
  slider.value = training.sheets.length - 1;
  slider.addEventListener("input", show);
  show();
  return html("figure", {}, html("figcaption", {}, text, slider), picture);
}
