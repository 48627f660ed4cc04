
"use strict";
const text = (row, column) => row.cells[column].textContent.trim();
const number = (cell) => parseFloat(cell.replace("\u2212", "-").replace(/^[<>~]\s*/, ""));

function sort(table, column, ascending) {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const filled = rows.filter((row) => text(row, column) !== "");
  const numeric = filled.every((row) => Number.isFinite(number(text(row, column))));
  filled.sort((a, b) => {
    const [x, y] = [text(a, column), text(b, column)];
    const order = numeric ? number(x) - number(y) : x.localeCompare(y, "en", { numeric: true });
    return ascending ? order : -order;
  });
  // rows without a value come last in either direction
  body.append(...filled, ...rows.filter((row) => text(row, column) === ""));
}

for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    if (head.textContent.trim() === "") return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const ascending = head.getAttribute("aria-sort") !== "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      sort(table, column, ascending);
    });
  });
}

for (const box of document.querySelectorAll(".commands")) {
  const code = box.querySelector("code");
  const said = box.querySelector("[role=status]");
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Copy the commands";
  box.insertBefore(button, said);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      said.textContent = "Copied";
    } catch {
      // a browser may keep its clipboard from local files
      getSelection().selectAllChildren(code);
      said.textContent = "Selected: press Ctrl-C";
    }
  });
}

addEventListener("beforeprint", () => {
  for (const folded of document.querySelectorAll("details")) folded.open = true;
});
