"use strict";
// The page is whole without this: it makes tables sortable and searchable, and curves stand out.

function value(row, column) {
  const cell = row.cells[column];
  const text = cell.dataset.v === undefined ? cell.textContent.trim() : cell.dataset.v;
  const number = Number(text);
  const empty = text === "" || text === "nan" || text === "None" || text === "<NA>";
  return empty ? null : Number.isNaN(number) ? text.toLowerCase() : number;
}

function compare(a, b) {
  if (a === null || b === null) return a === b ? 0 : a === null ? 1 : -1; // what is missing comes last
  if (typeof a === typeof b) return a < b ? -1 : a > b ? 1 : 0;
  return typeof a === "number" ? -1 : 1;
}

function sort(table, header, column) {
  const headers = table.tHead.rows[0].cells;
  const before = header.getAttribute("aria-sort");
  const numbers = header.classList.contains("num");
  const first = numbers && column > 0 ? "descending" : "ascending";
  const other = first === "descending" ? "ascending" : "descending";
  const order = before === first ? other : first;
  for (const one of headers) one.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", order);
  const sign = order === "ascending" ? 1 : -1;
  const body = table.tBodies[0];
  const keyed = Array.from(body.rows, (row, place) => [value(row, column), place, row]);
  keyed.sort(([a, i], [b, j]) => {
    const found = compare(a, b);
    return (a === null || b === null ? found : sign * found) || i - j;
  });
  body.append(...keyed.map(([, , row]) => row));
}

for (const table of document.querySelectorAll("table.sortable")) {
  Array.from(table.tHead.rows[0].cells).forEach((header, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => sort(table, header, column));
  });
  if (table.tBodies[0].rows.length > 4) addFilter(table);
}

function addFilter(table) {
  const label = document.createElement("label");
  const input = document.createElement("input");
  const count = document.createElement("span");
  label.className = "filter";
  input.type = "search";
  input.placeholder = "model, defense, attack";
  count.className = "small";
  count.setAttribute("role", "status");
  label.append("Filter", input, count);
  table.parentElement.before(label);
  const rows = Array.from(table.tBodies[0].rows, (row) => [row, row.textContent.toLowerCase()]);
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const [row, text] of rows) {
      row.hidden = !words.every((word) => text.includes(word));
      shown += row.hidden ? 0 : 1;
    }
    count.textContent = words.length ? `${shown} of ${rows.length} rows` : "";
  });
}

function show(panel, number) {
  panel.classList.toggle("faded", number !== null);
  for (const one of panel.querySelectorAll(".series")) {
    one.classList.toggle("shown", one.dataset.series === number);
  }
}

for (const panel of document.querySelectorAll(".panel")) {
  let kept = null;
  const names = panel.querySelectorAll(".name");
  for (const name of names) {
    name.addEventListener("click", () => {
      kept = kept === name.dataset.series ? null : name.dataset.series;
      for (const one of names) one.setAttribute("aria-pressed", String(one.dataset.series === kept));
      show(panel, kept);
    });
    name.addEventListener("mouseenter", () => show(panel, name.dataset.series));
    name.addEventListener("mouseleave", () => show(panel, kept));
  }
  for (const one of panel.querySelectorAll("g.series")) {
    one.addEventListener("mouseenter", () => show(panel, one.dataset.series));
    one.addEventListener("mouseleave", () => show(panel, kept));
  }
}
