"use strict";
(() => {
  const key = (row, column) => {
    const data = row.cells[column].querySelector("data");
    return data && data.value !== "" ? Number(data.value) : -Infinity;
  };
  const sort = (table, column, header) => {
    const up = header.getAttribute("aria-sort") === (column ? "descending" : "none");
    for (const other of header.parentNode.cells) other.setAttribute("aria-sort", "none");
    header.setAttribute("aria-sort", up ? "ascending" : "descending");
    const body = table.tBodies[0];
    const rows = [...body.rows].sort((a, b) => key(a, column) - key(b, column));
    body.append(...(up ? rows : rows.reverse()));
  };
  for (const table of document.querySelectorAll("table[data-sortable]")) {
    [...table.tHead.rows[0].cells].forEach((header, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...header.childNodes);
      header.append(button);
      header.setAttribute("aria-sort", column ? "none" : "ascending");
      button.addEventListener("click", () => sort(table, column, header));
    });
  }
  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details")) details.open = true;
  });
})();
