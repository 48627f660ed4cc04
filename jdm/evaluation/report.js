// Tables sort by their column's heading: first in falling order for numbers, then in rising order.
"use strict";
for (const head of document.querySelectorAll("thead th")) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = head.textContent;
  head.replaceChildren(button);
  head.setAttribute("aria-sort", "none");
  button.addEventListener("click", () => sort(head));
}
function sort(head) {
  const body = head.closest("table").tBodies[0];
  const column = [...head.parentNode.cells].indexOf(head);
  const falling = head.getAttribute("aria-sort") !== "descending";
  const value = (row) => row.cells[column].textContent.trim();
  const number = (row) => parseFloat(value(row).replace(/[ ,]/g, ""));
  const rows = [...body.rows].sort((a, b) => {
    const [x, y] = [number(a), number(b)];
    if (isNaN(x) !== isNaN(y)) return isNaN(x) ? 1 : -1; // text and empty cells stay last
    const order = isNaN(x) ? value(b).localeCompare(value(a)) : y - x;
    return falling ? order : -order;
  });
  for (const other of head.parentNode.cells) {
    if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
  }
  head.setAttribute("aria-sort", falling ? "descending" : "ascending");
  body.append(...rows);
}
