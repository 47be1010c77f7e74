// What can be taken away of a figure: its view as PNG or CSV, and its values as a table.

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// Spreadsheets take a cell that begins so for a formula.
const csvCell = (cell) => {
  if (typeof cell === "number") return String(cell);
  const text = /^'*[=+\-@\t\r]/.test(cell ?? "") ? `'${cell}` : cell ?? "";
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
};

function saveCsv(figure) {
  const columns = figure.columns();
  const header = columns.map(([name, title]) => csvCell(title ?? name)).join(",");
  const lines = figure.rows().map((row) => columns.map(([name]) => csvCell(row[name])).join(","));
  save(new Blob([[header, ...lines, ""].join("\n")], { type: "text/csv" }), `${figure.id}.csv`);
}

// The panels below each other, with their titles and the names of the models.
function savePng(figure) {
  const panels = figure.panels.map((panel) => ({ canvas: panel.canvas ?? panel.plot?.ctx.canvas, panel }))
    .filter(({ canvas }) => canvas && !canvas.hidden);
  const ratio = uPlot.pxRatio;
  const names = [...new Map(panels.flatMap(({ panel }) => (panel.drawn ?? []).filter((line) => panel.isVisible(line))
    .map((line) => [line.name, panel.colour(line)])))];
  const width = Math.max(...panels.map(({ canvas }) => canvas.width));
  const line = 18 * ratio;
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = panels.reduce((sum, one) => sum + one.canvas.height + 2 * line, 0)
    + (names.length + 2) * line;
  const ctx = canvas.getContext("2d");
  ctx.fillStyle = themed("--card");
  ctx.fillRect(0, 0, canvas.width, canvas.height);
  let y = line;
  const write = (text, x, colour) => {
    ctx.font = `${12 * ratio}px system-ui, sans-serif`;
    ctx.fillStyle = colour;
    ctx.fillText(text, x, y, width - x);
    y += line;
  };
  for (const { canvas: drawn, panel } of panels) {
    write(panel.title.textContent, 0.5 * line, themed("--text"));
    ctx.drawImage(drawn, 0, y - 0.5 * line);
    y += drawn.height;
    if (panel.canvas) y += line;
    else write(figure.page.values.axes[panel.frame.axis], width / 2, themed("--quiet"));
  }
  for (const [name, colour] of names) {
    ctx.fillStyle = colour;
    ctx.fillRect(0.5 * line, y - 0.3 * line, line, 3 * ratio);
    write(name, 2 * line, themed("--text"));
  }
  canvas.toBlob((blob) => save(blob, `${figure.id}.png`));
}

// An image with three pixels to each of the screen's.
function saveImage(image, name) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.width, image.height].map((size) => 3 * size);
  const ctx = canvas.getContext("2d");
  ctx.fillStyle = "#ffffff";
  ctx.fillRect(0, 0, canvas.width, canvas.height);
  ctx.drawImage(image, 0, 0, canvas.width, canvas.height);
  canvas.toBlob((blob) => save(blob, `${name}.png`));
}

// The view's values as a table below the figure: for screen readers, and for whoever wants the numbers.
function toggleTable(figure) {
  const open = figure.element.querySelector(".view-table");
  if (open) {
    open.remove();
    return;
  }
  const place = document.createElement("div");
  place.className = "scroll view-table";
  place.tabIndex = 0;
  place.setAttribute("role", "region");
  place.setAttribute("aria-label", "Values in view");
  const table = place.appendChild(document.createElement("table"));
  const head = table.createTHead().insertRow();
  const rows = figure.rows();
  // An error stands beside its value.
  const columns = figure.columns().filter(([name]) => !["stderr", "low", "high"].includes(name)
    && (name !== "note" || rows.some((row) => row.note)));
  for (const [name, title] of columns) {
    const cell = head.appendChild(document.createElement("th"));
    cell.scope = "col";
    cell.textContent = title ?? name;
  }
  const body = table.createTBody();
  const shown = rows.slice(0, 1000);
  for (const row of shown) {
    const line = body.insertRow();
    for (const [name] of columns) {
      const text = name === "value" ? valueInWords(row.value, row.stderr)
        : name === "x" ? row.x.toLocaleString("en", { maximumSignificantDigits: 6 }) : row[name];
      line.insertCell().textContent = text;
    }
  }
  if (rows.length > shown.length) {
    const line = body.insertRow().insertCell();
    line.colSpan = columns.length;
    line.textContent = `and ${rows.length - shown.length} more: zoom in, or take the CSV of this view`;
  }
  figure.element.append(place);
  place.focus();
}
