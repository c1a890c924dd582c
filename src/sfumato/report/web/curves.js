// Training: every figure over the updates as small multiples, and the contact sheets.

const LINES = ["tuned", "m2", "m1", "m3", "m0", "m4", "m5"];
const ORDER = ["reward", "gold", "vendi", "distance"];
const trainingCharts = [];

const series = (training, key) => (training.series[key] ?? [])
  .map((value, i) => [training.updates[i], value]).filter(([, value]) => value !== null && value !== undefined);

const updateDomain = () => {
  const updates = DATA.trainings.flatMap((training) => training.updates);
  return [Math.min(...updates), Math.max(...updates)];
};

// Where operating points were taken from any training.
const taken = () => DATA.trainings.flatMap((training) => training.marks);

// One figure over the updates, for every training: `name` as batches saw it, "eval/name" on held-out prompts, and
// dotted where the base stood before the first update.
function curve(name) {
  const lines = DATA.trainings.flatMap((training, i) => [["seen", name], ["held", `eval/${name}`]].map(([kind, key]) =>
    ({ name: training.name, style: LINES[i % LINES.length], kind, points: series(training, key) })))
    .filter((line) => line.points.length);
  const first = lines.find((line) => line.kind === "held" && line.points[0][0] === 0);
  if (!lines.some((line) => line.kind === "held")) for (const line of lines) line.kind = "held";
  const [start, end] = updateDomain();
  if (first) lines.push({ name: "base", style: "base", kind: "level", points: [[start, first.points[0][1]], [end, first.points[0][1]]] });
  return chart({ title: DATA.labels[name], lines, marks: taken(), across: "update", domain: [start, end], group: trainingCharts });
}

// Proxy, gold and diversity of the first training in one picture: the change since the first check, as a share of its largest.
function together() {
  const training = DATA.trainings[0];
  const lines = ORDER.slice(0, 3).map((name, i) => ({ name: DATA.labels[name], style: ["m1", "m3", "m0"][i], kind: "held", points: series(training, `eval/${name}`) }))
    .filter((line) => line.points.length > 1);
  if (lines.length < 2) return null;
  for (const line of lines) {
    const zero = line.points[0][1], most = Math.max(...line.points.map(([, v]) => Math.abs(v - zero))) || 1;
    line.points = line.points.map(([update, v]) => [update, (v - zero) / most]);
  }
  const drawn = chart({ title: `Change since the base, ${training.name}`, lines, marks: training.marks, across: "update", domain: updateDomain(), group: trainingCharts });
  drawn.append(html("ul", { class: "legend" }, ...lines.map(({ name, style }) => html("li", {}, html("span", { class: `line ${style}` }), name))));
  return drawn;
}

function startCurves() {
  if (!DATA.trainings.some((training) => training.updates.length)) return;
  const keys = new Set(DATA.trainings.flatMap((training) => Object.keys(training.series)));
  const held = [...keys].filter((key) => key.startsWith("eval/")).map((key) => key.slice(5));
  const first = [...new Set([...ORDER.filter((key) => keys.has(key) || held.includes(key)), ...held])];
  const rest = [...keys].filter((key) => !key.startsWith("eval/") && !first.includes(key));
  byId("curves").append(...[together()].filter(Boolean), ...first.map(curve));
  byId("more-curves").append(...rest.map(curve));
  byId("trainings").append(...DATA.trainings.map(({ name }, i) =>
    html("li", {}, html("span", { class: `line ${LINES[i % LINES.length]}` }), name)));
  DATA.trainings.forEach((training, i) => training.sheets.length && byId("sheets").append(sheet(training, i)));
}

// A slider through the contact sheets of a training.
function sheet(training, i) {
  const picture = html("img", { alt: "" });
  const text = html("output");
  const slider = html("input", { type: "range", min: 0, max: training.sheets.length - 1, "aria-label": `Update of training ${training.name}` });
  const show = () => {
    const update = training.sheets[slider.value];
    picture.alt = `Samples of training ${training.name} after update ${update}`;
    text.textContent = `${training.name}, update ${update}`;
    slider.setAttribute("aria-valuetext", `update ${update}`);
    picture.dataset.picture = `sheet-${i}-${slider.value}`;
    whenVisible.unobserve(picture);
    whenVisible.observe(picture);
  };
  slider.value = training.sheets.length - 1;
  slider.addEventListener("input", show);
  show();
  return html("figure", {}, html("figcaption", {}, text, slider), picture);
}
