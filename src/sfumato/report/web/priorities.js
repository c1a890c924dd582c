// The head: base, tuned and the recommended point for the prompt that lost most; what to use at another priority.

function drawTelling(point) {
  const ends = ["base", "tuned"].map((method) => DATA.points.find((other) => other.method === method));
  const shown = [...new Set([...ends, point])].filter((other) => other && hasPictures(other, DATA.telling));
  if (ends.some((end) => !shown.includes(end))) return;
  byId("telling").hidden = false;
  const rows = shown.flatMap((other) => [html("span", {}, other.label), tiles(other, DATA.telling)]);
  byId("telling").replaceChildren(...rows,
    html("p", { class: "note" }, `“${DATA.prompts[DATA.telling].text}”: the same ${rows[1].dataset.shown} seeds in every row, ` +
      "of the prompt that lost most diversity."));
}

// The stage that gives at least the wanted share back.
function choose(share) {
  const stages = [...byId("stages").children];
  const chosen = stages.find((stage) => Number(stage.dataset.regained) >= share - 1e-9) ?? stages.at(-1);
  for (const stage of stages) stage.setAttribute("aria-current", stage === chosen);
  return pointOf[chosen.dataset.point];
}

function startPriorities() {
  const slider = byId("keep"), output = byId("kept");
  const show = () => {
    const point = choose(slider.value / 100);
    output.textContent = `at least ${slider.value} %: ${point.label}`;
    slider.setAttribute("aria-valuetext", output.textContent);
    drawTelling(point);
  };
  slider.addEventListener("input", show);
  show();
}
