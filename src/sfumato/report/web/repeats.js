// Near-duplicates: the closest pairs of a point, and the way to any image's nearest neighbours.

let repeats = null;

// Read when first asked for: it has an entry for every image.
function readRepeats() {
  const source = byId("repeats-data");
  repeats ??= source ? JSON.parse(source.textContent) : { points: [], seeds: 1 };
  return repeats;
}

const tilePlace = (tile) => [Math.floor(tile / readRepeats().seeds), tile % readRepeats().seeds];
const distanceText = (value) => value.toFixed(value < 0.01 ? 4 : 3);

function drawPairs() {
  const point = pointOf[byId("repeating").value];
  const { pairs } = readRepeats().points.find(({ name }) => name === point.name);
  byId("pairs").replaceChildren(...pairs.map(([a, b, distance]) => {
    const [first, second] = [tilePlace(a), tilePlace(b)];
    const texts = [...new Set([first, second].map(([prompt]) => DATA.prompts[prompt].text))];
    const seeds = [first, second].map(([prompt, seed]) => DATA.prompts[prompt].seeds[seed]);
    return html("figure", {}, html("div", { class: "pair" }, picture(point, ...first), picture(point, ...second)),
      html("figcaption", {}, html("b", {}, texts.join(" / ")), html("small", {}, `seeds ${seeds.join(" and ")} · distance ${distanceText(distance)}`)));
  }));
}

// An image's nearest neighbours as [[kind, point, [[prompt, seed, distance], ...]], ...]; empty where features were not kept.
function neighboursOf(point, prompt, seed) {
  const found = readRepeats().points.find(({ name }) => name === point.name);
  if (!found) return [];
  const tile = prompt * repeats.seeds + seed, base = DATA.points.find(({ method }) => method === "base");
  return [["own", point], ["base", base]].map(([kind, of]) => {
    const [ids, distances] = found.near[kind], each = ids.length / (repeats.seeds * DATA.prompts.length);
    const own = ids.slice(tile * each, (tile + 1) * each);
    return [kind, of, own.map((id, i) => [...tilePlace(id), distances[tile * each + i] / 1e4]).filter((_, i) => own[i] >= 0)];
  }).filter(([, , near]) => near.length);
}

function startRepeats() {
  const named = readRepeats().points.map(({ name }) => pointOf[name]);
  byId("repeating").append(...options(named));
  byId("repeating").value = named.find(({ method }) => method === "tuned")?.name ?? named[0].name;
  byId("repeating").addEventListener("change", drawPairs);
  drawPairs();
}
