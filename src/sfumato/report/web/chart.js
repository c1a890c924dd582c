// A small line chart. Charts that are given the same group share one pointer.

const PLOT = { width: 300, height: 200, right: 292, top: 10, bottom: 170 };

// `lines` are {name, style, kind, points: [[x, y], ...]}, kind "held" (thick), "seen" (thin) or "level" (dotted);
// `marks` are [x, text] on the axis, `across` is what x counts.
function chart({ title, lines, marks = [], across, domain, group }) {
  const y = scale(extent(lines.flatMap((line) => line.points.map(([, v]) => v)), 0.06), [PLOT.bottom, PLOT.top], 4);
  const box = { ...PLOT, left: 14 + 7 * Math.max(...y.ticks.map((tick) => y.text(tick).length)) };
  const x = scale(domain, [box.left, box.right], 4);
  const picture = svg("svg", { viewBox: `0 0 ${PLOT.width} ${PLOT.height}`, role: "img", "aria-label": summary(title, across, lines, marks) }, axes(x, y, box));
  for (const [at, text] of marks) {
    picture.append(svg("path", { class: "taken", d: `M${x(at)} ${PLOT.bottom}l-4 7h8Z` }, svg("title", {}, text)));
  }
  for (const { style, kind, points } of lines) {
    const d = points.map(([u, v], i) => `${i ? "L" : "M"}${x(u).toFixed(1)} ${y(v).toFixed(1)}`).join("");
    picture.append(svg("path", { class: `curve ${style} ${kind}`, d }));
    if (points.length === 1) picture.append(svg("circle", { class: `dot ${style}`, cx: x(points[0][0]), cy: y(points[0][1]), r: 3 }));
  }
  const cursor = svg("line", { class: "cursor", y1: PLOT.top, y2: PLOT.bottom, visibility: "hidden" });
  picture.append(cursor);
  const readout = html("output", { "aria-hidden": "true" });
  group.push((at) => {
    cursor.setAttribute("visibility", at === null ? "hidden" : "visible");
    if (at !== null) for (const end of ["x1", "x2"]) cursor.setAttribute(end, x(at));
    readout.textContent = at === null ? "" : `${across} ${at}: ${reading(lines, marks, at)}`;
  });
  picture.addEventListener("pointermove", (event) => {
    const { left, width } = picture.getBoundingClientRect();
    const at = Math.round(x.invert(((event.clientX - left) / width) * PLOT.width));
    const inside = at >= x.invert(box.left) && at <= x.invert(box.right);
    for (const show of group) show(inside ? at : null);
  });
  picture.addEventListener("pointerleave", () => group.forEach((show) => show(null)));
  return html("figure", {}, html("figcaption", {}, html("b", {}, title), readout), picture);
}

function reading(lines, marks, at) {
  const nearest = (points) => points.reduce((a, b) => (Math.abs(b[0] - at) < Math.abs(a[0] - at) ? b : a));
  const held = lines.filter((line) => line.kind === "held");
  const told = (held.length ? held : lines).map((line) => `${line.name} ${number(nearest(line.points)[1])}`);
  const taken = marks.filter(([u]) => u === at).map(([, text]) => `here: ${text}`);
  return [...told, ...taken].join(", ");
}

function summary(title, across, lines, marks) {
  const told = lines.filter((line) => line.kind !== "level").map(({ name, kind, points }) =>
    `${name}${kind === "seen" ? " in training batches" : ""} from ${number(points[0][1])} to ${number(points.at(-1)[1])}`);
  const taken = marks.map(([u, text]) => `${text} at ${across} ${u}`);
  return [`${title} over the ${across}s: ${told.join("; ")}`, ...taken].join("; ");
}
