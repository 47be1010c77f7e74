// A figure: panels above each other or side by side on one axis of x, with one cursor and one zoom.

const AT_ONCE = 4;

// What panels share: the axis of x, its scale, its range. It is the page's, or the panel's own.
class Frame {
  constructor(figure, own = "") {
    Object.assign(this, { figure, own, key: own ? `${figure.id}.${own}` : figure.id, settled: null });
  }

  // The axis, its scale, and the least place above 0, where arcsinh turns from straight to logarithmic.
  settle() {
    if (this.settled) return this.settled;
    const { values, view, axis: usual } = this.figure.page;
    const models = this.figure.groups.flatMap((group) => values.members[group]);
    const has = (axis) => models.some((model) => values.xOf(model, axis).some((x) => x !== null));
    // Of a figure whose models have no place on the axis that is chosen, the one that they have.
    const first = values.models[models[0]].axis;
    const axis = this.own || ([view.x, usual, first].find((one) => one && has(one)) ?? first ?? "step");
    const places = models.map((model) => values.xOf(model, axis));
    // Arcsinh, unless it is chosen otherwise, where a model has checkpoints in the first hundredth of its run.
    const isEarly = ({ low, high }) => low < 0.01 * high;
    const fitting = places.some((xs) => isEarly(rangeOf([xs]))) ? "asinh" : "linear";
    const scale = view.scale || (this.own ? "log" : fitting);
    this.settled = { axis, scale, least: rangeOf(places).least };
    return this.settled;
  }

  get axis() {
    return this.settle().axis;
  }

  get scale() {
    return this.settle().scale;
  }

  leastX() {
    return this.settle().least;
  }

  rangeX() {
    const { view, page, groups } = this.figure;
    const zoom = view.zoom.get(this.key);
    if (zoom) return zoom;
    const visible = groups.filter((group) => !view.hidden.has(page.values.groups[group][0]));
    const models = (visible.length ? visible : groups).flatMap((group) => page.values.members[group]);
    const { axis, scale: kind, least } = this.settle();
    const columns = models.map((model) => page.values.xOf(model, axis));
    const { low, high } = rangeOf(kind === "log" ? columns.map((xs) => xs.filter((x) => x > 0)) : columns);
    if (high < low) return [0, 1];
    const scale = scaleOf(kind, least);
    const room = high > low ? 0.015 * (scale.fwd(high) - scale.fwd(low)) : Math.abs(scale.fwd(low)) * 0.1 || 1;
    return [scale.fwd(low) - room, scale.fwd(high) + room].map(scale.bwd);
  }

  zoomTo(ends) {
    const { view, page } = this.figure;
    if (ends) view.zoom.set(this.key, ends.map((x) => Number(x.toPrecision(5))));
    else view.zoom.delete(this.key);
    page.refresh(this.figure);
  }
}

class ChartFigure {
  // The element has a place, .chart, for each metric. Some figures have axes of their own, one for each metric.
  constructor(element, metrics, groups, page, axes = []) {
    Object.assign(this, { element, groups, page, view: page.view, id: element.dataset.figure });
    this.frame = new Frame(this);
    this.frames = axes.map((axis) => new Frame(this, axis));
    this.box = element.querySelector(".charts");
    this.panels = [];
    this.isStacked = !element.classList.contains("wide") || this.id === "explore";
    this.setMetrics(metrics);
    this.keys = new KeyboardCursor(this);
    this.resized = new ResizeObserver(() => this.panels.forEach((panel) => panel.resize()));
    this.resized.observe(this.box);
  }

  setMetrics(metrics) {
    this.panels.forEach((panel) => panel.plot?.destroy());
    const places = metrics.map((_, i) => this.box.querySelectorAll(".chart")[i] ?? this.addPlace(i));
    [...this.box.querySelectorAll(".chart")].slice(metrics.length).forEach((place) => place.remove());
    this.panels = metrics.map((metric, i) => {
      places[i].replaceChildren();
      return new Panel(places[i], metric, this.frames[i] ?? this.frame);
    });
    this.spoil();
  }

  addPlace(i) {
    const place = this.box.appendChild(document.createElement("div"));
    place.className = "chart";
    place.id = `chart-${this.id}-${i + 1}`;
    return place;
  }

  // What the reader has chosen has changed: the figure is to be drawn anew.
  spoil() {
    this.isStale = true;
    [this.frame, ...this.frames].forEach((frame) => { frame.settled = null; });
  }

  // The verdicts whose onsets are shaded: of a figure of one model, or of the one model that is not hidden.
  onsets(panel) {
    const lines = panel.drawn.filter((line) => panel.isVisible(line));
    if (lines.length !== 1 || lines[0].model === null) return [];
    const { verdictOf, onlyVerdictOf } = this.page.values;
    const { model } = lines[0];
    const verdict = verdictOf.get(`${panel.metric} ${model}`) ?? onlyVerdictOf.get(model);
    return verdict?.onset ? [verdict] : [];
  }

  draw() {
    try {
      this.element.classList.add("live");
      this.isStale = false;
      this.panels.slice(0, AT_ONCE).forEach((panel) => panel.draw());
      this.drawRest(this.panels, AT_ONCE);
    } catch (error) {
      // The image is still there.
      this.element.classList.remove("live");
      this.isStale = false;
      console.error(error);
    }
    this.updateVisibility();
  }

  // Of many panels the others are drawn one a frame, unless all change meanwhile.
  drawRest(panels, from) {
    this.isBusy = from < panels.length;
    if (!this.isBusy) return;
    requestAnimationFrame(() => {
      if (this.panels !== panels || this.isStale) return;
      panels[from].draw();
      this.drawRest(panels, from + 1);
    });
  }

  refresh() {
    if (this.isStale) this.draw();
    else this.panels.forEach((panel) => panel.refresh());
    this.updateVisibility();
  }

  // A card goes with its model.
  updateVisibility() {
    const all = this.page.values.groups.length;
    this.element.hidden = this.groups.length < all
      && this.groups.every((group) => this.view.hidden.has(this.page.values.groups[group][0]));
  }

  hovered(panel, near) {
    this.page.tip.show(panel, near);
  }

  columns() {
    const titles = ["metric", "model", "checkpoint", "x", "value", "stderr", "low", "high", "note"];
    const axes = [...new Set(this.panels.map(({ frame }) => this.page.values.axes[frame.axis]))];
    return titles.map((name) => (name === "x" ? ["x", axes.join(" or ")] : [name]));
  }

  // The values that are in view, one a row.
  rows() {
    return this.panels.flatMap((panel) => panel.lines.filter((line) => panel.isVisible(line)).flatMap((line) =>
      line.x.flatMap((x, i) => (x < panel.frame.rangeX()[0] || x > panel.frame.rangeX()[1] ? [] : [{
        ...{ metric: panel.about.name, model: line.name, x, value: line.y[i] },
        checkpoint: line.k ? this.page.values.models[line.model].names[line.k[i]] : "mean of runs",
        stderr: line.e ? line.e[i] : null,
        low: line.low ? line.low[i] : null,
        high: line.high ? line.high[i] : null,
        note: line.k ? this.page.values.leftOut(panel.metric, line.model, line.k[i]) : "",
      }]))));
  }
}

// The values at the cursor, beside it.
class Tip {
  constructor() {
    this.element = document.body.appendChild(document.createElement("div"));
    this.element.className = "chart-tip";
    this.element.hidden = true;
  }

  show(panel, near) {
    this.element.hidden = near.length === 0;
    if (!near.length) return;
    const { plot, values, frame } = panel;
    const { left, top, event } = { ...plot.cursor, event: null };
    const closest = near.reduce((a, b) => (Math.abs(a.top - top) <= Math.abs(b.top - top) ? a : b));
    const { line, i } = closest;
    this.element.replaceChildren();
    this.add("strong", placeInWords(frame.axis, line.x[i]));
    if (line.k) this.add("span", values.models[line.model].names[line.k[i]]);
    const shown = [...near].sort((a, b) => a.top - b.top);
    for (const point of shown.slice(0, 12)) {
      const row = this.add("div", `${point.line.name} `);
      const swatch = document.createElement("i");
      swatch.style.background = panel.colour(point.line);
      row.prepend(swatch);
      const value = row.appendChild(document.createElement("b"));
      value.textContent = panel.pointInWords(point);
      if (point === closest && near.length > 1) row.className = "closest";
    }
    if (shown.length > 12) this.add("div", `and ${shown.length - 12} more`);
    const why = line.k ? values.leftOut(panel.metric, line.model, line.k[i]) : "";
    if (why) this.add("em", why);
    const over = plot.over.getBoundingClientRect();
    this.place(over.left + left, over.top + top);
  }

  // Pairs of words, the first of each in bold, beside a point of the window.
  showLines(lines, x, y) {
    this.element.hidden = false;
    this.element.replaceChildren();
    for (const [bold, more] of lines) {
      const line = this.add("div", "");
      line.appendChild(document.createElement("strong")).textContent = bold;
      line.append(more);
    }
    this.place(x, y);
  }

  place(x, y) {
    const { offsetWidth: width, offsetHeight: height } = this.element;
    const onRight = x + 16 + width < innerWidth;
    this.element.style.left = `${Math.max(4, onRight ? x + 16 : x - width - 16)}px`;
    this.element.style.top = `${Math.max(4, Math.min(y - height / 2, innerHeight - height - 4))}px`;
  }

  add(tag, text) {
    const element = this.element.appendChild(document.createElement(tag));
    element.textContent = text;
    return element;
  }

  hide() {
    this.element.hidden = true;
  }
}

// Arrow keys read a figure's values: left and right along a line, up and down from line to line.
class KeyboardCursor {
  constructor(figure) {
    this.figure = figure;
    [this.number, this.i] = [0, -1];
    const { box } = figure;
    box.tabIndex = 0;
    box.addEventListener("keydown", (event) => this.pressed(event));
    box.addEventListener("blur", () => figure.page.tip.hide());
  }

  pressed(event) {
    const lines = this.figure.panels.flatMap((panel) =>
      (panel.plot ? panel.drawn.filter((line) => panel.isVisible(line)).map((line) => ({ panel, line })) : []));
    if (!lines.length || event.altKey || event.ctrlKey || event.metaKey) return;
    const steps = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -Infinity, End: Infinity };
    if (event.key === "ArrowUp" || event.key === "ArrowDown") {
      this.number = (this.number + (event.key === "ArrowDown" ? 1 : -1) + lines.length) % lines.length;
    } else if (event.key in steps) {
      this.i += steps[event.key];
    } else if (event.key === "+" || event.key === "-") {
      this.zoom(lines, event.key === "+" ? 0.5 : 2);
      event.preventDefault();
      return;
    } else if (event.key === "Enter" && this.point) {
      event.preventDefault();
      this.figure.page.checkpoint.go(...this.point);
      return;
    } else if (event.key === "Escape" || event.key === "0") {
      new Set(lines.map(({ panel }) => panel.frame)).forEach((frame) => frame.zoomTo(null));
      return;
    } else {
      return;
    }
    event.preventDefault();
    this.number = Math.min(this.number, lines.length - 1);
    const { panel, line } = lines[this.number];
    const [low, high] = panel.frame.rangeX();
    const inView = line.x.flatMap((x, i) => (x >= low && x <= high && line.y[i] !== null ? [i] : []));
    if (!inView.length) return;
    this.i = Math.max(0, Math.min(this.i, inView.length - 1));
    this.read(panel, line, inView[this.i]);
  }

  read(panel, line, i) {
    const { plot } = panel;
    const [left, top] = [plot.valToPos(line.x[i], "x"), plot.valToPos(line.y[i], "y")];
    [this.at, this.frame] = [line.x[i], panel.frame];
    this.point = line.k ? [line.model, line.k[i]] : null;
    plot.setCursor({ left, top });
    const point = { line, i, top };
    this.figure.page.tip.show(panel, [point]);
    const why = line.k ? panel.values.leftOut(panel.metric, line.model, line.k[i]) : "";
    const parts = [line.name, placeInWords(panel.frame.axis, line.x[i]), panel.about.name, panel.pointInWords(point), why];
    this.figure.page.say(parts.filter(Boolean).join(", "));
  }

  // Zoom about the point that was read last, or the middle.
  zoom(lines, factor) {
    const frame = this.frame ?? lines[0].panel.frame;
    const scale = scaleOf(frame.scale, frame.leastX());
    const [low, high] = frame.rangeX().map(scale.fwd);
    const middle = this.at === undefined ? (low + high) / 2 : scale.fwd(this.at);
    frame.zoomTo([low, high].map((end) => scale.bwd(middle + factor * (end - middle))));
  }
}
