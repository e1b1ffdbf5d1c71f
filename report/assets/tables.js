// Sorts tables by their headings, and filters the overview by category.
"use strict";

function compareCells(first, second, descending) {
  if (first === "" || second === "") return (first === "") - (second === ""); // missing values come last
  const numbers = [Number(first), Number(second)];
  const order = numbers.some(Number.isNaN) ? first.localeCompare(second) : numbers[0] - numbers[1];
  return descending ? -order : order;
}

function sortTable(table, column, descending) {
  const body = table.tBodies[0];
  const key = (row) => row.cells[column]?.dataset.sort ?? "";
  const rows = Array.from(body.rows).sort((a, b) => compareCells(key(a), key(b), descending));
  body.append(...rows);
  for (const heading of table.tHead.querySelectorAll("th[scope=col]")) {
    if (heading.cellIndex === column) heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
    else heading.removeAttribute("aria-sort");
  }
}

function makeSortable(table) {
  for (const heading of table.tHead.querySelectorAll("th[scope=col]")) {
    heading.querySelector("button").addEventListener("click", () => {
      const sorted = heading.getAttribute("aria-sort");
      const descending = sorted ? sorted === "ascending" : heading.classList.contains("number");
      sortTable(table, heading.cellIndex, descending);
    });
  }
}

function makeSorter(select) {
  const table = document.getElementById(select.dataset.table);
  select.addEventListener("change", () => {
    const column = Number(select.value || 1);
    sortTable(table, column, table.tHead.rows[1].cells[column].classList.contains("number"));
  });
}

function filterByCategory(chips) {
  const wanted = chips.filter((chip) => chip.getAttribute("aria-pressed") === "true").map((chip) => chip.dataset.filter);
  const rows = Array.from(document.querySelectorAll("#events tbody tr"));
  const fits = (element) => !wanted.length || wanted.includes(element.dataset.category);
  for (const row of rows) row.hidden = !fits(row);
  for (const mark of document.querySelectorAll(".marks a")) mark.classList.toggle("dim", !fits(mark));
  const shown = rows.filter((row) => !row.hidden).length;
  document.getElementById("shown").textContent = wanted.length ? `${shown} of ${rows.length} shown` : "";
}

for (const table of document.querySelectorAll("table")) {
  if (table.querySelector("th[scope=col] button")) makeSortable(table);
}
for (const select of document.querySelectorAll("select[data-table]")) makeSorter(select);
const CHIPS = Array.from(document.querySelectorAll(".chip"));
for (const chip of CHIPS) {
  chip.addEventListener("click", () => {
    chip.setAttribute("aria-pressed", chip.getAttribute("aria-pressed") !== "true");
    filterByCategory(CHIPS);
  });
}
