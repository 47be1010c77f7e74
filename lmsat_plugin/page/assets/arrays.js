// Arrays over training: a heat map of each model, a column a checkpoint, a row an entry; or a line a checkpoint.

const MOST_PANELS = 12;

// The entries of an array's axis that the page has: the first of each point, their names, and what they are.
class Entries {
  constructor([firsts, length, isMean], axis) {
    this.firsts = firsts || Array.from({ length }, (_, i) => i);
    Object.assign(this, { length, isMean, axis });
    this.names = this.firsts.map((first, i) => {
      const last = isMean ? (this.firsts[i + 1] ?? length) - 1 : first;
      return last > first ? `${first}–${last}` : String(first);
    });
    this.short = this.firsts.map((first) => shortNumber(first));
  }
}

// An array of a model: its checkpoints, and the values of each.
class ModelArray {
  constructor(array, content, values) {
    Object.assign(this, { name: array.name, axes: array.axes, model: content.model, k: content.k, rows: content.values });
    this.entries = content.places.map((place, axis) => new Entries(place, array.axes[axis]));
    this.values = values;
    const [first, second] = this.entries;
    this.names = second ? first.names.flatMap((a) => second.names.map((b) => `${a}, ${b}`)) : first.names;
    this.short = second ? first.short.flatMap((a) => second.short.map((b) => `${a}, ${b}`)) : first.short;
    this.axis = array.axes.join(", ");
  }

  // The checkpoints that have a place on an axis, in its order: as { i, x }, i among the checkpoints of the array.
  placed(axis) {
    const places = this.values.xOf(this.model, axis);
    return this.k.map((k, i) => ({ i, x: places[k] })).filter(({ x }) => x !== null).sort((a, b) => a.x - b.x)
      .filter(({ x }, n, all) => n + 1 === all.length || all[n + 1].x > x);
  }

  // What the page has not of it.
  missing() {
    const total = this.values.models[this.model].names.length;
    const parts = this.k.length < total ? [`${this.k.length} of ${total} checkpoints`] : [];
    for (const { firsts, length, isMean, axis } of this.entries) {
      if (firsts.length < length) {
        parts.push(isMean ? `${firsts.length} means over ${length} entries (${axis})` : `${firsts.length} of ${length} (${axis})`);
      }
    }
    return parts;
  }
}

class ArrayPanel {
  constructor(place, array, figure) {
    Object.assign(this, { place, array, figure, at: null });
    const { values } = array;
    this.title = place.appendChild(document.createElement("div"));
    this.title.className = "panel-head";
    this.title.textContent = values.models[array.model].name;
    this.canvas = place.appendChild(document.createElement("canvas"));
    this.canvas.className = "map";
    this.canvas.setAttribute("role", "img");
    this.canvas.addEventListener("pointermove", (event) => this.hovered(event));
    this.canvas.addEventListener("pointerleave", () => this.figure.page.tip.hide());
    this.canvas.addEventListener("click", (event) => this.clicked(event));
    this.note = place.appendChild(document.createElement("p"));
    this.note.className = "panel-note";
  }

  draw(scale) {
    this.scale = scale;
    const placed = this.array.placed(this.figure.axis);
    this.placed = this.figure.onScale(placed);
    const parts = this.array.missing();
    const nowhere = this.array.k.length - placed.length;
    if (nowhere) parts.push(`${nowhere} without a place of its own on this axis`);
    const off = placed.length - this.placed.length;
    if (off) parts.push(`${off} at 0, which a logarithmic axis has no room for`);
    const gaps = this.array.rows.flat().filter((value) => value === null).length;
    if (gaps) parts.push(`${gaps} values are not finite: left blank`);
    if (!this.placed.length) parts.unshift("Nothing to draw on this axis");
    this.note.textContent = parts.length ? `${parts.join("; ")}.` : "";
    this.canvas.hidden = !this.placed.length;
    if (!this.placed.length) return;
    this.surface = preparedCanvas(this.canvas);
    if (this.figure.isLines) this.drawLines();
    else this.drawCells();
    const ends = [this.placed[0], this.placed.at(-1)].map(({ x }) => placeInWords(this.figure.axis, x));
    this.canvas.setAttribute("aria-label", `${this.array.name} of ${this.title.textContent}, `
      + `${this.array.names.length} entries from ${ends[0]} to ${ends[1]}`);
  }

  drawCells() {
    const { ctx, box } = this.surface;
    const { axis, scale: kind } = this.figure;
    const { scaleX, low, high } = this.figure.domain;
    const ends = cellEnds(this.placed.map(({ x }) => scaleX.fwd(x)));
    // On whole pixels, so that no ground shines through between cells.
    const whole = (place) => Math.round(place * uPlot.pxRatio) / uPlot.pxRatio;
    this.edges = ends.map((end) => whole(box.left + (box.width * (end - low)) / (high - low)));
    this.size = box.height / this.array.names.length;
    const tops = [...this.array.names, ""].map((_, row) => whole(box.top + box.height - row * this.size));
    const map = this.figure.colours;
    this.placed.forEach(({ i }, column) => {
      this.array.rows[i].forEach((value, row) => {
        if (value === null) return;
        ctx.fillStyle = map.at(this.scale.share(value));
        const [left, right] = this.edges.slice(column, column + 2);
        ctx.fillRect(left, tops[row + 1], right - left, tops[row] - tops[row + 1]);
      });
    });
    const ticks = ticksOf(kind, scaleX, [low, high].map(scaleX.bwd), box.width, 48)
      .map((x) => [(box.width * (scaleX.fwd(x) - low)) / (high - low), shortNumber(x)]);
    drawAxis(this.surface, "bottom", ticks, this.figure.page.values.axes[axis]);
    drawAxis(this.surface, "left", namedTicks(this.array.short, box.height, 16), this.array.axis);
  }

  drawLines() {
    const { ctx, box } = this.surface;
    const [entries] = this.array.entries;
    const scaleX = scaleOf(entries.isMean ? "log" : "linear", 1);
    const at = entries.firsts.map((first) => scaleX.fwd(first + 1));
    const across = at.at(-1) - at[0] || 1;
    this.columns = at.map((x) => box.left + (at.length > 1 ? (box.width * (x - at[0])) / across : box.width / 2));
    const last = this.placed.length - 1;
    ctx.lineWidth = 1.2;
    this.placed.forEach(({ i }, n) => {
      ctx.strokeStyle = ctx.fillStyle = this.figure.colours.at(last ? n / last : 1);
      strokeLine(ctx, this.array.rows[i].map((value, j) => (value === null ? null : [this.columns[j], this.top(value)])));
    });
    const { kind, scale, low, high } = this.scale;
    drawAxis(this.surface, "left", scaleTicks(kind, scale, low, high, box.height, 22), "");
    const apart = 36;
    const ticks = [];
    this.columns.forEach((x, j) => {
      if (!ticks.length || x - box.left - ticks.at(-1)[0] >= apart) ticks.push([x - box.left, entries.short[j]]);
    });
    drawAxis(this.surface, "bottom", ticks, this.array.axis);
  }

  top(value) {
    const { box } = this.surface;
    return box.top + box.height * (1 - this.scale.share(value));
  }

  // The checkpoint (a place in this.placed) and the entry at a point of the canvas; null outside.
  cellAt(x, y) {
    const { box } = this.surface;
    if (x < box.left || x > box.left + box.width || y < box.top || y > box.top + box.height) return null;
    if (!this.figure.isLines) {
      const column = this.edges.findIndex((edge) => edge > x) - 1;
      if (column < 0) return null;
      return { column, row: Math.min(this.array.names.length - 1, Math.floor((box.top + box.height - y) / this.size)) };
    }
    const row = this.columns.reduce((best, one, j) => (Math.abs(one - x) < Math.abs(this.columns[best] - x) ? j : best), 0);
    const apart = (n) => {
      const value = this.array.rows[this.placed[n].i][row];
      return value === null ? Infinity : Math.abs(this.top(value) - y);
    };
    return { column: this.placed.reduce((best, _, n) => (apart(n) < apart(best) ? n : best), 0), row };
  }

  inWords({ column, row }) {
    const { i, x } = this.placed[column];
    return {
      place: placeInWords(this.figure.axis, x),
      checkpoint: this.array.values.models[this.array.model].names[this.array.k[i]],
      entry: `${this.array.axis} ${this.array.names[row]}`,
      value: valueInWords(this.array.rows[i][row]),
    };
  }

  hovered({ offsetX, offsetY }) {
    const cell = this.surface && this.cellAt(offsetX, offsetY);
    if (!cell) this.figure.page.tip.hide();
    else this.tell(cell, offsetX, offsetY);
  }

  tell(cell, x, y) {
    const { place, checkpoint, entry, value } = this.inWords(cell);
    const frame = this.canvas.getBoundingClientRect();
    this.figure.page.tip.showLines([[place, checkpoint], [entry, value]], frame.left + x, frame.top + y);
  }

  // Where a cell is on the canvas.
  middle({ column, row }) {
    const { box } = this.surface;
    if (this.figure.isLines) return [this.columns[row], this.top(this.array.rows[this.placed[column].i][row] ?? this.scale.low)];
    return [(this.edges[column] + this.edges[column + 1]) / 2, box.top + box.height - (row + 0.5) * this.size];
  }

  clicked({ offsetX, offsetY }) {
    const cell = this.surface && this.cellAt(offsetX, offsetY);
    if (cell) this.go(cell);
  }

  go({ column }) {
    this.figure.page.checkpoint.go(this.array.model, this.array.k[this.placed[column].i]);
  }
}

function strokeLine(ctx, points) {
  ctx.beginPath();
  let isOn = false;
  points.forEach((point) => {
    if (point === null) isOn = false;
    else if (isOn) ctx.lineTo(...point);
    else {
      ctx.moveTo(...point);
      isOn = true;
    }
  });
  ctx.stroke();
  // A point without neighbours is no line.
  points.forEach((point, i) => {
    if (point && !points[i - 1] && !points[i + 1]) ctx.fillRect(point[0] - 1.5, point[1] - 1.5, 3, 3);
  });
}

// One array of all models that are not hidden, beside each other, in the same colours.
class ArrayFigure {
  constructor(page) {
    this.page = page;
    this.block = document.querySelector("#arrays");
    this.element = this.block.querySelector("figure");
    this.id = "arrays";
    this.box = this.element.querySelector(".charts");
    this.panels = [];
    this.groups = page.values.groups.map((_, group) => group);
    const { arrays, not_drawn: notDrawn, map } = page.values;
    this.arrays = arrays;
    this.colours = new ColourMap(map);
    this.block.hidden = !arrays.length;
    if (!arrays.length) return;
    const tools = this.block.querySelector(".tools");
    this.select = this.choose(tools, "Array", "array", arrays.map(({ name }) => [name, name]));
    this.form = this.choose(tools, "as", "as", [["", "heat map"], ["lines", "lines"]]);
    this.bar = tools.appendChild(document.createElement("span"));
    this.bar.className = "colours";
    this.note = this.block.appendChild(document.createElement("p"));
    this.note.className = "panel-note";
    this.notDrawn = notDrawn.length ? `Not drawn: ${notDrawn.slice(0, 5).join("; ")}${notDrawn.length > 5 ? "; …" : ""}. ` : "";
    this.box.tabIndex = 0;
    this.box.addEventListener("keydown", (event) => this.pressed(event));
    this.box.addEventListener("blur", () => page.tip.hide());
    new ResizeObserver(() => {
      if (!this.isStale && this.width !== this.box.clientWidth) this.draw();
    }).observe(this.box);
    this.spoil();
  }

  choose(place, title, name, options) {
    const label = place.appendChild(document.createElement("label"));
    label.append(`${title} `);
    const select = label.appendChild(document.createElement("select"));
    options.forEach(([value, text]) => select.add(new Option(text, value)));
    select.addEventListener("change", () => this.page.view.change({ [name]: select.value }));
    return select;
  }

  // Where nothing is chosen, an array by layer.
  chosen() {
    const layers = this.arrays.findIndex(({ axes }) => axes[0] === "layer");
    const named = this.arrays.findIndex(({ name }) => name === this.page.view.array);
    return named >= 0 ? named : Math.max(0, layers);
  }

  get view() {
    return this.page.view;
  }

  // The axis and the scale are those of the charts, as far as the models have places there.
  settle() {
    if (this.settled) return this.settled;
    const { explorer } = this.page;
    this.settled = { axis: explorer.figure.frame.axis, scale: explorer.figure.frame.scale };
    return this.settled;
  }

  get axis() {
    return this.settle().axis;
  }

  get scale() {
    return this.settle().scale;
  }

  get isLines() {
    return this.view.as === "lines" && this.arrays[this.chosen()].axes.length === 1;
  }

  spoil() {
    this.isStale = true;
    this.settled = null;
  }

  updateVisibility() {}

  refresh() {
    if (this.isStale || this.drawn !== this.state()) this.draw();
  }

  state() {
    const { hidden, array, as } = this.view;
    return JSON.stringify([[...hidden], array, as]);
  }

  draw() {
    if (!this.arrays.length) return;
    this.isStale = false;
    this.drawn = this.state();
    this.width = this.box.clientWidth;
    const chosen = this.chosen();
    const array = this.arrays[chosen];
    this.select.value = array.name;
    this.form.disabled = array.axes.length > 1;
    this.form.value = this.isLines ? "lines" : "";
    const { values } = this.page;
    const all = array.models.map((content) => new ModelArray(array, content, values));
    const isVisible = ({ model }) => !this.view.hidden.has(values.groups[values.models[model].group][0]);
    const shown = all.filter(isVisible);
    const own = shown.slice(0, MOST_PANELS);
    this.box.replaceChildren();
    this.panels = own.map((one, i) => {
      const place = this.box.appendChild(document.createElement("div"));
      Object.assign(place, { className: "chart", id: `chart-arrays-${i + 1}` });
      return new ArrayPanel(place, one, this);
    });
    this.domain = this.domainOf(own);
    const scale = valueScale(own.flatMap(({ rows }) => rows), this.view.y);
    this.panels.forEach((panel) => panel.draw(scale));
    this.tellColours(scale);
    const more = shown.length - own.length;
    this.note.textContent = this.notDrawn
      + (more > 0 ? `${more} more models have it: hide some of those shown. ` : "")
      + (own.length ? "" : "No model that is shown has this array. ");
  }

  // The checkpoints that the scale has room for.
  onScale(placed) {
    return placed.filter(({ x }) => this.scale !== "log" || x > 0);
  }

  // The scale of x, and its ends, which all panels share.
  domainOf(arrays) {
    const xs = arrays.map((array) => this.onScale(array.placed(this.axis)).map(({ x }) => x)).filter((own) => own.length);
    const scaleX = scaleOf(this.scale, rangeOf(xs).least);
    const ends = xs.map((own) => cellEnds(own.map(scaleX.fwd)));
    return { scaleX, low: Math.min(...ends.map(([first]) => first)), high: Math.max(...ends.map((own) => own.at(-1))) };
  }

  tellColours({ low, high, kind }) {
    const ends = this.isLines ? ["first checkpoint", "last"] : [low, high].map((value) =>
      (Number.isFinite(value) ? valueInWords(Number(value.toPrecision(3))) : ""));
    const strip = document.createElement("i");
    strip.style.background = this.colours.gradient();
    this.bar.replaceChildren(ends[0], strip, `${ends[1]}${!this.isLines && kind === "log" ? " (logarithmic)" : ""}`);
  }

  // Arrow keys read values: left and right along training, up and down over entries, Page keys from model to model.
  pressed(event) {
    if (event.altKey || event.ctrlKey || event.metaKey || !this.panels.some((panel) => panel.placed?.length)) return;
    const at = this.at ?? { panel: 0, column: 0, row: 0 };
    const steps = {
      ...{ ArrowLeft: ["column", -1], ArrowRight: ["column", 1], Home: ["column", -Infinity], End: ["column", Infinity] },
      ...{ ArrowUp: ["row", 1], ArrowDown: ["row", -1], PageUp: ["panel", -1], PageDown: ["panel", 1] },
    };
    if (event.key === "Enter" && this.at) {
      event.preventDefault();
      this.panels[at.panel].go(at);
      return;
    }
    if (!(event.key in steps)) return;
    event.preventDefault();
    const [name, step] = steps[event.key];
    const next = { ...at, [name]: at[name] + step };
    next.panel = Math.max(0, Math.min(this.panels.length - 1, next.panel));
    const panel = this.panels[next.panel];
    if (!panel.placed.length) return;
    next.column = Math.max(0, Math.min(panel.placed.length - 1, next.column));
    next.row = Math.max(0, Math.min(panel.array.names.length - 1, next.row));
    this.at = next;
    panel.tell(next, ...panel.middle(next));
    const { place, entry, value } = panel.inWords(next);
    this.page.say(`${panel.title.textContent}, ${place}, ${entry}, ${value}`);
  }

  columns() {
    return [["array"], ["model"], ["checkpoint"], ["x", this.page.values.axes[this.axis]], ["entry"], ["value"]];
  }

  rows() {
    return this.panels.flatMap(({ array, placed }) => placed.flatMap(({ i, x }) => array.rows[i].map((value, row) => ({
      ...{ array: array.name, model: array.values.models[array.model].name, x, value },
      ...{ checkpoint: array.values.models[array.model].names[array.k[i]], entry: array.names[row] },
    }))));
  }
}
