// Start the parts that this run has; sort the table.

function sortBy(heading) {
  const table = heading.closest("table"), body = table.tBodies[0], column = heading.cellIndex;
  const descending = heading.getAttribute("aria-sort") === "ascending" ||
    (!heading.hasAttribute("aria-sort") && heading.classList.contains("number"));
  const value = (row) => row.cells[column].dataset.value;
  const compare = (a, b) => {
    if (value(a) === undefined || value(b) === undefined) return (value(a) === undefined) - (value(b) === undefined);
    const order = heading.classList.contains("number") ? value(a) - value(b) : value(a).localeCompare(value(b));
    return descending ? -order : order;
  };
  for (const other of table.querySelectorAll("[aria-sort]")) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
  body.append(...[...body.rows].sort(compare));
}

function startTable() {
  for (const button of document.querySelectorAll("#figures thead button")) {
    button.addEventListener("click", () => sortBy(button.closest("th")));
  }
  for (const button of document.querySelectorAll("#figures [data-point]")) {
    button.addEventListener("click", () => {
      pin(pointOf[button.dataset.point]);
      byId("frontier-title").scrollIntoView();
    });
  }
}

if (byId("frontier")) startFrontier();
if (byId("telling")) startTelling();
if (byId("wall")) startWall();
if (byId("curves")) startCurves();
if (byId("figures")) startTable();
