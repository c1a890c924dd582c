// One image in a dialog: large, beside the same seed at every point and its nearest neighbours.

// A single image as a button that opens it.
function picture(point, prompt, seed) {
  const button = html("button", { type: "button", class: "picture", "aria-label": caption(point, prompt, seed) });
  stripStyle(button, prompt);
  cut(button, prompt, seed);
  button.style.setProperty("--strip", stripUrl(DATA.points.indexOf(point), prompt));
  button.addEventListener("click", () => look(point, prompt, seed));
  return button;
}

const shelf = (title, items) => html("section", {}, html("h3", {}, title), html("ul", { class: "shelf" }, ...items.map(
  ([point, prompt, seed, text]) => html("li", {}, picture(point, prompt, seed), html("small", {}, text)))));

function look(point, prompt, seed) {
  const dialog = byId("look"), { text, seeds } = DATA.prompts[prompt];
  const everywhere = columnsOf("").filter((other) => hasPictures(other, prompt)).map((other) => [other, prompt, seed, other.label]);
  const near = neighboursOf(point, prompt, seed).map(([kind, of, found]) => shelf(
    kind === "own" ? `Nearest among the images of ${of.label}` : "Nearest among the base's images",
    found.map(([p, s, distance]) => [of, p, s, `${DATA.prompts[p].text}, seed ${DATA.prompts[p].seeds[s]}, distance ${distanceText(distance)}`])));
  byId("look-title").textContent = `${point.label}, “${text}”, seed ${seeds[seed]}`;
  const large = html("div", { class: "large picture", role: "img", "aria-label": caption(point, prompt, seed) });
  stripStyle(large, prompt);
  cut(large, prompt, seed);
  large.style.setProperty("--strip", stripUrl(DATA.points.indexOf(point), prompt));
  byId("look-body").replaceChildren(html("div", {}, large, html("p", { class: "note" }, point.captions[prompt]?.[seed] ?? "")),
    ...near, shelf("The same seed at every point", everywhere));
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}

function startLook() {
  byId("look-close").addEventListener("click", () => byId("look").close());
  byId("look").addEventListener("click", (event) => { if (event.target === byId("look")) byId("look").close(); });
}
