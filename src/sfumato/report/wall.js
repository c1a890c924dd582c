// The wall: operating points across, prompts down, the same seed at the same place; and the three rows at the page's head.

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

function outline(event) {
  const wall = byId("wall"), tile = event.target.closest("i");
  for (const old of wall.querySelectorAll("i.same")) old.classList.remove("same");
  if (!tile) return;
  for (const same of tile.closest("tr").querySelectorAll(`i[data-seed="${tile.dataset.seed}"]`)) same.classList.add("same");
  byId("seed").textContent = tileCaption(tile);
}

function startWall() {
  const columns = byId("columns"), size = byId("tiles"), wall = byId("wall");
  const resize = () => wall.style.setProperty("--tile", `${size.value}px`);
  if (columns) {
    const methods = DATA.methods.filter((method) => method.points.length);
    columns.append(...methods.map(({ name }) => html("option", { value: name }, `base to tuned by ${name}`)));
    columns.addEventListener("change", () => drawWall(columnsOf(columns.value)));
  }
  size.addEventListener("change", resize);
  wall.addEventListener("pointerover", outline);
  if (window.innerWidth < 600) size.value = "20";
  resize();
  drawWall(columnsOf(""));
}

// Base, tuned and the best balance for the prompt that lost most.
function startTelling() {
  const chosen = ["base", "tuned"].map((method) => DATA.points.find((point) => point.method === method));
  const rows = [...chosen, pointOf[DATA.best]].filter(Boolean).map((point) => [point, tiles(point, DATA.telling)]);
  if (!rows.length || rows.some(([, pictures]) => !pictures)) return;
  byId("telling").append(
    ...rows.flatMap(([point, pictures]) => [html("span", {}, point.label), pictures]),
    html("p", { class: "note" }, `“${DATA.prompts[DATA.telling].text}”: the same ${rows[0][1].dataset.shown} seeds in every row, ` +
      "of the prompt that lost most diversity."));
}
