// The wall that changes in place: a slider over a method's points from base to tuned, the same seeds in the same places.

const stops = () => columnsOf(byId("method").value);

function drawStrength() {
  const chosen = byId("wall-prompt").value;
  const prompts = DATA.prompts.map((_, prompt) => prompt).filter((prompt) => chosen === "" || prompt === Number(chosen));
  byId("strength").max = stops().length - 1;
  byId("strength-wall").classList.toggle("one", chosen !== "");
  byId("strength-wall").replaceChildren(...prompts.map((prompt) => {
    const block = tiles(stops()[0], prompt, { live: true });
    return block && html("figure", {}, html("figcaption", {}, html("b", {}, DATA.prompts[prompt].text), html("small")), block);
  }).filter(Boolean));
  showStop();
}

// Show the stop of the slider in every block, and fetch its neighbours' pictures ahead.
function showStop() {
  const slider = byId("strength"), all = stops(), at = Number(slider.value), point = all[at];
  for (const block of byId("strength-wall").querySelectorAll(".tiles")) {
    if (hasPictures(point, block.dataset.prompt)) showPoint(block, point);
    block.parentElement.querySelector("small").textContent = promptFigures(point, block.dataset.prompt);
  }
  const figures = [DATA.axes.reward, DATA.axes.diversity, "forwards"].filter((key) => point.metrics[key]);
  const told = figures.map((key) => `${metricOf[key].label} ${number(point.metrics[key][0])}`);
  byId("stop").replaceChildren(html("b", {}, point.label), ` ${at + 1} of ${all.length} · ${told.join(" · ")}`);
  slider.setAttribute("aria-valuetext", `${point.label}, ${told.join(", ")}`);
  requestIdleCallback(() => [all[at - 1], all[at + 1]].filter(Boolean).forEach(decodeAhead));
}

const decoded = new Map();
function decodeAhead(point) {
  for (const block of byId("strength-wall").querySelectorAll(".tiles")) {
    const id = stripId(point, block.dataset.prompt);
    if (!block.children.length || decoded.has(id) || !byId(id)) continue;
    const picture = new Image();
    picture.src = pictureUrl(id);
    decoded.set(id, picture);
  }
}

// Show one prompt's images, from a place elsewhere on the page.
function showPrompt(prompt) {
  byId(methodOptions().length ? "view-strength" : "view-all").checked = true;
  byId("wall-prompt").value = prompt;
  showWall();
  goTo("wall-title");
}

function startStrength() {
  byId("method").append(...methodOptions());
  byId("wall-prompt").append(...promptOptions());
  const best = stops().findIndex((point) => point.name === DATA.best);
  byId("strength").max = Math.max(0, stops().length - 1);
  byId("strength").value = Math.max(0, best);
  byId("strength").addEventListener("input", showStop);
  for (const chooser of [byId("method"), byId("wall-prompt")]) chooser.addEventListener("change", drawStrength);
}
