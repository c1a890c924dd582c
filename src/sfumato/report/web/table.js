// Tables that sort by a press on a heading.

function sortBy(heading) {
  const table = heading.closest("table"), body = table.tBodies[0], column = heading.cellIndex;
  const isNumber = heading.classList.contains("number");
  const descending = heading.getAttribute("aria-sort") === "ascending" || (!heading.hasAttribute("aria-sort") && isNumber);
  const value = (row) => row.cells[column].dataset.value;
  const compare = (a, b) => {
    if (value(a) === undefined || value(b) === undefined) return (value(a) === undefined) - (value(b) === undefined);
    const order = isNumber ? value(a) - value(b) : value(a).localeCompare(value(b));
    return descending ? -order : order;
  };
  for (const other of table.querySelectorAll("[aria-sort]")) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
  body.append(...[...body.rows].sort(compare));
}

function startTables() {
  for (const button of document.querySelectorAll(".figures thead button")) {
    button.addEventListener("click", () => sortBy(button.closest("th")));
  }
  for (const button of document.querySelectorAll("button.link[data-point]")) {
    button.addEventListener("click", () => {
      pin(pointOf[button.dataset.point]);
      goTo("frontier-title");
    });
  }
}

// Bring a part into view and move the focus to its heading, so that the keyboard goes on from there.
function goTo(id) {
  const heading = byId(id);
  heading.setAttribute("tabindex", -1);
  heading.scrollIntoView();
  heading.focus({ preventScroll: true });
}
