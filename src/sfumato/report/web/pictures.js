// Pictures from the strips at the page's end, decoded when they come into view.

const urls = new Map();

function pictureUrl(id) {
  const source = byId(id);
  if (source && !urls.has(id)) {
    const bytes = Uint8Array.from(atob(source.textContent.trim()), (letter) => letter.charCodeAt(0));
    urls.set(id, URL.createObjectURL(new Blob([bytes], { type: "image/webp" })));
  }
  return urls.get(id) ?? null;
}

const whenVisible = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    whenVisible.unobserve(target);
    if (target.dataset.picture) target.src = pictureUrl(target.dataset.picture);
    else fill(target);
  }
}, { rootMargin: "300px" });

const stripId = (point, prompt) => `strip-${DATA.points.indexOf(point)}-${prompt}`;
const hasPictures = (point, prompt) => byId(stripId(point, prompt)) !== null;

// What a block or a single tile of one strip needs to know of it.
function stripStyle(element, prompt) {
  element.style.setProperty("--count", DATA.prompts[prompt].seeds.length);
  element.style.setProperty("--aspect", DATA.tile[0] / DATA.tile[1]);
}
const stripUrl = (point, prompt) => `url("${pictureUrl(`strip-${point}-${prompt}`)}")`;

function cut(tile, prompt, seed) {
  const { seeds } = DATA.prompts[prompt];
  tile.dataset.seed = seed;
  tile.style.backgroundPosition = `${seeds.length > 1 ? (100 * seed) / (seeds.length - 1) : 0}% 0`;
}

// The images of a point for a prompt as a block of tiles, at most `most` of them; null if there are none. Every tile
// opens on a click; in a live block the keyboard reaches them too, one stop for the block and arrows inside it.
function tiles(point, prompt, { most = Infinity, live = false } = {}) {
  if (!hasPictures(point, prompt)) return null;
  const shown = Math.min(DATA.prompts[prompt].seeds.length, most);
  const block = html("div", { class: "tiles", role: live ? "group" : "img" });
  Object.assign(block.dataset, { prompt, shown });
  if (live) block.dataset.live = "";
  const columns = Math.min(shown, shown > 12 ? 6 : 4);
  for (const [name, value] of Object.entries({ columns, rows: Math.ceil(shown / columns), shown })) block.style.setProperty(`--${name}`, value);
  stripStyle(block, prompt);
  showPoint(block, point);
  return block;
}

// Let a block show another point's images of the same seeds.
function showPoint(block, point) {
  const { prompt, shown } = block.dataset;
  block.dataset.point = DATA.points.indexOf(point);
  block.setAttribute("aria-label", `${point.label}: ${shown} images of “${DATA.prompts[prompt].text}”`);
  whenVisible.unobserve(block);
  whenVisible.observe(block);
}

function fill(block) {
  const { point, prompt, shown, live } = block.dataset;
  block.style.setProperty("--strip", stripUrl(point, prompt));
  for (let i = block.children.length; i < shown; i++) {
    const tile = live === undefined ? html("i") : html("button", { type: "button", tabindex: i ? -1 : 0 });
    cut(tile, prompt, i);
    block.append(tile);
  }
  if (live !== undefined) for (const tile of block.children) tile.setAttribute("aria-label", tileCaption(tile));
}

// "seed 1007 · reward 1.30 · fluent" of a tile.
const tileCaption = (tile) => caption(...placeOf(tile));
function caption(point, prompt, seed) {
  const { text, seeds } = DATA.prompts[prompt];
  const told = point.captions[prompt]?.[seed];
  return [`${point.label}, “${text}”, seed ${seeds[seed]}`, told].filter(Boolean).join(" · ");
}

// Point, prompt and seed of a tile.
function placeOf(tile) {
  const { point, prompt } = tile.parentElement.dataset;
  return [DATA.points[point], Number(prompt), Number(tile.dataset.seed)];
}

const STEPS = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: Infinity, ArrowUp: -Infinity };

function moveInBlock(event) {
  const tile = event.target.closest(".tiles[data-live] > button"), step = STEPS[event.key];
  if (!tile || !step) return;
  const all = [...tile.parentElement.children], columns = Number(tile.parentElement.style.getPropertyValue("--columns"));
  const next = all[all.indexOf(tile) + (Math.abs(step) === 1 ? step : Math.sign(step) * columns)];
  event.preventDefault();
  if (!next) return;
  tile.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}

function startPictures() {
  document.addEventListener("keydown", moveInBlock);
  document.addEventListener("click", (event) => {
    const tile = event.target.closest(".tiles > *");
    if (tile) look(...placeOf(tile));
  });
  for (const picture of document.querySelectorAll("img[data-picture]")) whenVisible.observe(picture);
}
