// Prompts by collapse: thumbnails in the table, and the way to a prompt's images.

function startPrompts() {
  const ends = ["base", "tuned"].map((method) => DATA.points.find((point) => point.method === method));
  for (const row of document.querySelectorAll("#prompts tbody tr[data-prompt]")) {
    const prompt = Number(row.dataset.prompt);
    const shown = [...ends, pointOf[DATA.best]].filter(Boolean);
    row.querySelectorAll(".thumbs").forEach((cell, i) => cell.append(tiles(shown[i], prompt, { most: 6 }) ?? ""));
    row.querySelector("button")?.addEventListener("click", () => showPrompt(prompt));
  }
}
