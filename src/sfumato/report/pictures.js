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
    fill(target);
  }
}, { rootMargin: "300px" });

const stripId = (point, prompt) => `strip-${DATA.points.indexOf(point)}-${prompt}`;

// The images of a point for a prompt as a block of tiles, at most `most` of them; null if there are none.
function tiles(point, prompt, most = Infinity) {
  if (!byId(stripId(point, prompt))) return null;
  const { text, seeds } = DATA.prompts[prompt];
  const shown = Math.min(seeds.length, most);
  const block = html("div", { class: "tiles", role: "img", "aria-label": `${point.label}: ${shown} images of “${text}”` });
  block.dataset.point = DATA.points.indexOf(point);
  block.dataset.prompt = prompt;
  block.dataset.shown = shown;
  const columns = Math.min(shown, shown > 12 ? 6 : 4);
  const style = { columns, rows: Math.ceil(shown / columns), count: seeds.length, shown, aspect: DATA.tile[0] / DATA.tile[1] };
  for (const [name, value] of Object.entries(style)) block.style.setProperty(`--${name}`, value);
  whenVisible.observe(block);
  return block;
}

function fill(block) {
  const { point, prompt, shown } = block.dataset;
  const count = DATA.prompts[prompt].seeds.length;
  block.style.setProperty("--strip", `url("${pictureUrl(`strip-${point}-${prompt}`)}")`);
  for (let i = 0; i < shown; i++) {
    const tile = html("i");
    tile.dataset.seed = i;
    tile.style.backgroundPosition = `${count > 1 ? (100 * i) / (count - 1) : 0}% 0`;
    block.append(tile);
  }
}

// "seed 1007 · reward 1.30 · fluent" of the tile under the pointer.
function tileCaption(tile) {
  const { point, prompt } = tile.parentElement.dataset;
  const { text, seeds } = DATA.prompts[prompt];
  const caption = DATA.points[point].captions[prompt]?.[tile.dataset.seed];
  return [`${DATA.points[point].label}, “${text}”, seed ${seeds[tile.dataset.seed]}`, caption].filter(Boolean).join(" · ");
}
