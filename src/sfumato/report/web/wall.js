// The wall as a table: operating points across, prompts down, the same seed at the same place in every cell of a row.

function drawWall(columns) {
  const head = html("tr", {}, html("td"), ...columns.map((point) =>
    html("th", { scope: "col" }, methodOf[point.method] ? key(methodOf[point.method]) : null, point.label)));
  const rows = DATA.prompts.map(({ text }, prompt) => html("tr", {}, html("th", { scope: "row" }, text),
    ...columns.map((point) => html("td", {}, tiles(point, prompt) ?? "–", underline(point, prompt)))));
  byId("wall").replaceChildren(html("table", {}, html("thead", {}, head), html("tbody", {}, ...rows)));
}

function underline(point, prompt) {
  const value = DATA.axes && point.perPrompt[DATA.axes.diversity]?.[prompt];
  return value === null || value === undefined ? null : html("small", {}, number(value));
}

// Every point from the lowest reward to the highest, base first and tuned last; or one method's points in its own order.
function columnsOf(method) {
  if (method) return methodOf[method].points.map((name) => pointOf[name]).filter(Boolean);
  const rank = (point) => ({ base: -1, tuned: 1 })[point.method] ?? 0;
  const reward = (point) => point.metrics[DATA.axes?.reward]?.[0] ?? 0;
  return [...DATA.points].sort((a, b) => rank(a) - rank(b) || reward(a) - reward(b));
}

// Outline the seed under the pointer or the focus in all cells of its row.
function outline(event) {
  const tile = event.target.closest(".tiles > *");
  for (const old of document.querySelectorAll(".tiles > .same")) old.classList.remove("same");
  if (!tile) return;
  for (const same of tile.closest("tr, figure").querySelectorAll(`[data-seed="${tile.dataset.seed}"]`)) same.classList.add("same");
  byId("seed").textContent = tileCaption(tile);
}

const options = (points) => points.map(({ name, label }) => html("option", { value: name }, label));
const promptOptions = () => DATA.prompts.map(({ text, unrelated }, i) => html("option", { value: i }, unrelated ? `${text} (unrelated)` : text));
const methodOptions = () => DATA.methods.filter((method) => method.points.length)
  .map(({ name }) => html("option", { value: name }, `base to tuned by ${name}`));

const WALLS = {
  strength: () => drawStrength(),
  pair: () => drawWall([byId("left"), byId("right")].map((chooser) => pointOf[chooser.value])),
  all: () => drawWall(columnsOf(byId("columns").value)),
};

function showWall() {
  const chosen = document.querySelector("#views input:checked").value;
  for (const part of document.querySelectorAll("[data-view]")) part.hidden = !part.dataset.view.split(" ").includes(chosen);
  WALLS[chosen]();
}

function startWall() {
  const size = byId("tiles"), area = byId("wall-area");
  const resize = () => area.style.setProperty("--tile", `${size.value}px`);
  byId("columns").append(...methodOptions());
  for (const side of ["left", "right"]) byId(side).append(...options(columnsOf("")));
  byId("right").value = DATA.best ?? columnsOf("").at(-1).name;
  for (const chooser of [byId("columns"), byId("left"), byId("right")]) chooser.addEventListener("change", showWall);
  if (!methodOptions().length) byId("view-all").checked = true;
  startStrength();
  byId("views").addEventListener("change", showWall);
  size.addEventListener("change", resize);
  for (const event of ["pointerover", "focusin"]) area.addEventListener(event, outline);
  if (window.innerWidth < 600) size.value = "30";
  resize();
  showWall();
}
