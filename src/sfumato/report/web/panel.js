// The chosen operating point: its figures, how it compares beyond noise, its definition and its images.

function pin(point) {
  view.pinned = point;
  for (const mark of document.querySelectorAll("#frontier .mark")) {
    mark.setAttribute("aria-pressed", mark.dataset.point === point?.name);
  }
  const panel = byId("panel");
  if (!point) {
    panel.replaceChildren(html("p", { class: "note" }, "Click a mark to keep its images and figures here."));
    return;
  }
  const close = html("button", { type: "button", class: "close", "aria-label": "Close" }, "×");
  close.addEventListener("click", () => {
    pin(null);
    document.querySelector(`#frontier .mark[data-point="${CSS.escape(point.name)}"]`)?.focus();
  });
  const rest = DATA.metrics.slice(2).map((metric) => metric.key);
  panel.replaceChildren(
    html("h3", {}, methodOf[point.method] ? key(methodOf[point.method]) : "", point.label, close),
    point.name === DATA.best ? html("p", { class: "note" }, "The best balance of reward kept and diversity given back.") : "",
    figuresOf(point, [DATA.axes.reward, DATA.axes.diversity]),
    compared(point) ?? "",
    html("details", {}, html("summary", {}, "All its figures"), figuresOf(point, rest)),
    html("details", {}, html("summary", {}, "Exact definition"), html("pre", { tabindex: 0 }, JSON.stringify(point.definition, null, 2))),
    ...DATA.prompts.map((_, prompt) => picturesOf(point, prompt)).filter(Boolean));
  panel.scrollTop = 0;
}

function figuresOf(point, keys) {
  const rows = keys.filter((key) => point.metrics[key]).map((key) => {
    const difference = isInterior(point) ? point.versusTuned[key] : null;
    return html("tr", {}, html("th", { scope: "row" }, metricOf[key].label), html("td", {}, interval(point.metrics[key]),
      difference ? html("small", {}, signed(difference), html("br"), "against tuned") : null));
  });
  return html("table", {}, html("tbody", {}, ...rows));
}

const signed = ([mean, low, high]) => `${mean > 0 ? "+" : ""}${interval([mean, low, high])}`;

// Is it better than each other point beyond noise? Differences with simultaneous intervals on both axes.
function compared(point) {
  const keys = [DATA.axes.reward, DATA.axes.diversity];
  const found = new Map();
  for (const [a, b, metric, mean, low, high] of DATA.differences) {
    if (![a, b].includes(point.name) || !keys.includes(metric)) continue;
    const other = a === point.name ? b : a;
    found.set(other, { ...found.get(other), [metric]: a === point.name ? [mean, low, high] : [-mean, -high, -low] });
  }
  if (!found.size) return null;
  const head = html("tr", {}, html("td"), ...keys.map((key) => html("th", { scope: "col" }, metricOf[key].label)));
  const rows = [...found].filter(([name]) => pointOf[name]).map(([name, of]) =>
    html("tr", {}, html("th", { scope: "row" }, pointOf[name].label), ...keys.map((key) => difference(of[key], metricOf[key].higher))));
  return html("details", {}, html("summary", {}, "Better than the others, beyond noise?"),
    html("table", { class: "compared" }, html("thead", {}, head), html("tbody", {}, ...rows)),
    html("p", { class: "note" }, "This point minus the other. ▲ better and ▼ worse beyond noise, ≈ not told apart: 95 % intervals " +
      "that hold for all of these comparisons at once."));
}

function difference(value, higherIsBetter) {
  if (!value) return html("td", {}, "–");
  const [mean, low, high] = value;
  const standing = low > 0 === higherIsBetter && (low > 0 || high < 0) ? ["▲", "better"] : low > 0 || high < 0 ? ["▼", "worse"] : ["≈", "not told apart"];
  return html("td", {}, html("span", { role: "img", "aria-label": standing[1] }, standing[0]),
    ` ${mean > 0 ? "+" : ""}${number(mean)} `, html("small", {}, `(${number(low)} to ${number(high)})`));
}

function picturesOf(point, prompt) {
  const pictures = tiles(point, prompt, { live: true });
  if (!pictures) return null;
  return html("figure", {}, html("figcaption", {}, html("b", {}, DATA.prompts[prompt].text), html("small", {}, promptFigures(point, prompt))), pictures);
}

// A point's figures on the two axes for one prompt, in a line.
function promptFigures(point, prompt) {
  if (!DATA.axes) return "";
  return [DATA.axes.reward, DATA.axes.diversity].map((key) => [metricOf[key]?.label, point.perPrompt[key]?.[prompt]])
    .filter(([, value]) => value !== null && value !== undefined)
    .map(([label, value]) => `${label} ${number(value)}`).join(" · ");
}
