// Are there enough images? Measures against the number of images per prompt, for base, tuned and the recommended point.

// Base and tuned share the ink among the marks; as lines they need two colours.
const sampleStyle = (point) => (point.method === "base" ? "m6" : methodOf[point.method].style);

function startSamples() {
  const { images, curves, extrapolated = {} } = DATA.smallN;
  const chosen = [...DATA.points.filter((point) => !isInterior(point)), pointOf[DATA.best]].filter((point) => point && curves[point.name]);
  const metrics = [...new Set(chosen.flatMap((point) => Object.keys(curves[point.name])))];
  const group = [];
  byId("samples").append(...metrics.map((name) => {
    const lines = chosen.map((point) => ({ name: point.label, style: sampleStyle(point), kind: "held",
      points: (curves[point.name][name] ?? []).map((value, i) => [images[i], value]).filter(([, value]) => value !== null) }))
      .filter((line) => line.points.length);
    const drawn = chart({ title: metricOf[name]?.label ?? name, lines, across: "image", domain: [images[0], images.at(-1)], group });
    const told = chosen.filter((point) => extrapolated[point.name]?.[name] !== undefined)
      .map((point) => `${point.label} ${number(extrapolated[point.name][name])}`);
    if (told.length) drawn.append(html("p", { class: "note" }, `With ever more images, extrapolated: ${told.join(", ")}.`));
    return drawn;
  }));
  byId("sampled").append(...chosen.map((point) => html("li", {}, html("span", { class: `line ${sampleStyle(point)}` }), point.label)));
}
