"use strict";
// Every table of numbers gets a button that copies it as CSV; every model gets a switch that hides its rows and figures.
function cellText(cell) {
  const copy = cell.cloneNode(true);
  copy.querySelectorAll("br").forEach((one) => one.replaceWith(" "));
  const text = copy.textContent.trim().replace(/\s+/g, " ").replace(/\u2212/g, "-");
  return /[",]/.test(text) ? '"' + text.replace(/"/g, '""') + '"' : text;
}
function tableRows(table) {
  // Headings may span rows and columns: each fills all the cells that it covers.
  const grid = [];
  Array.from(table.rows).filter((row) => !row.hidden).forEach((row, y) => {
    grid[y] = grid[y] || [];
    let x = 0;
    for (const cell of row.cells) {
      while (grid[y][x] !== undefined) x += 1;
      for (let down = 0; down < cell.rowSpan; down += 1)
        for (let along = 0; along < cell.colSpan; along += 1) {
          grid[y + down] = grid[y + down] || [];
          grid[y + down][x + along] = cellText(cell);
        }
    }
  });
  return grid.map((row) => row.join(",")).join("\n");
}
function copyText(text, button) {
  const done = () => { button.textContent = "copied"; setTimeout(() => { button.textContent = "copy as CSV"; }, 1500); };
  const byHand = () => {
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    done();
  };
  if (navigator.clipboard) navigator.clipboard.writeText(text).then(done, byHand);
  else byHand();
}
document.querySelectorAll(".scroll > table").forEach((table) => {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "copy as CSV";
  button.addEventListener("click", () => copyText(tableRows(table), button));
  table.parentElement.before(button);
});
document.querySelectorAll("[data-switch]").forEach((box) => {
  box.addEventListener("change", () => {
    document.querySelectorAll("[data-model]").forEach((one) => {
      if (one.dataset.model === box.dataset.switch) one.toggleAttribute("hidden", !box.checked);
    });
  });
});
