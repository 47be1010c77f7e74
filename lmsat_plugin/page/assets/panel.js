// One chart of one metric, drawn by uPlot: lines, bands, and the marks of verdicts.

const STAR = "M0-6L1.8-1.9 6-1.9 2.6 .9 3.8 5.2 0 2.6-3.8 5.2-2.6 .9-6-1.9-1.8-1.9Z";
const DASHES = [[], [7, 3], [1.5, 3], [7, 3, 1.5, 3]];
const FEW_LINES = 8;
const FEW_POINTS = 60;
const isDark = () => matchMedia("(prefers-color-scheme: dark)").matches;
const themes = { light: new Map(), dark: new Map() };

// A colour of the style sheet. It is kept: to ask for one while the page changes takes the browser long.
function themed(name) {
  const known = themes[isDark() ? "dark" : "light"];
  if (!known.has(name)) known.set(name, getComputedStyle(document.documentElement).getPropertyValue(name).trim());
  return known.get(name);
}

// The least number above 0 of some columns, and the least and the greatest of all.
function rangeOf(columns) {
  let [least, low, high] = [Infinity, Infinity, -Infinity];
  for (const column of columns) {
    for (const x of column) {
      if (x === null || x === undefined) continue;
      low = Math.min(low, x);
      high = Math.max(high, x);
      if (x > 0) least = Math.min(least, x);
    }
  }
  return { least: least === Infinity ? 1 : least, low, high };
}

function dashed(ctx, dashes, from, to) {
  ctx.strokeStyle = themed("--quiet");
  ctx.lineWidth = uPlot.pxRatio;
  ctx.setLineDash(dashes.map((length) => length * uPlot.pxRatio));
  ctx.beginPath();
  ctx.moveTo(...from);
  ctx.lineTo(...to);
  ctx.stroke();
  ctx.setLineDash([]);
}

class Panel {
  // The frame is what panels share, an axis of x and a zoom, and has the figure: see figures.js.
  constructor(place, metric, frame) {
    const { figure } = frame;
    const { values } = figure.page;
    Object.assign(this, { place, metric, values, figure, frame, plot: null, lines: [] });
    this.about = values.metrics[metric];
    this.head = place.appendChild(document.createElement("div"));
    this.head.className = "panel-head";
    this.title = this.head.appendChild(document.createElement(this.about.meaning ? "abbr" : "span"));
    this.title.title = this.about.meaning;
    this.title.textContent = this.about.unit ? `${this.about.name} (${this.about.unit})` : this.about.name;
    this.readout = this.head.appendChild(document.createElement("output"));
    this.box = place.appendChild(document.createElement("div"));
    this.box.className = "panel-box";
    this.note = place.appendChild(document.createElement("p"));
    this.note.className = "panel-note";
  }

  colour(line) {
    return this.values.groups[line.group][isDark() ? 2 : 1];
  }

  // The lines of the models that are not hidden, on the axes that are chosen.
  load() {
    const { figure: { view }, axis } = this.frame;
    this.lines = this.values.lines(this.metric, this.figure.groups, { axis, eachRun: view.runs === "each" });
    this.kind = { x: this.frame.scale, y: view.y || (this.about.log || this.frame.own ? "log" : "linear") };
    const { least, low } = rangeOf(this.lines.map((line) => line.y));
    if (this.kind.y === "log" && low <= 0) this.kind.y = least < Infinity && view.y === "log" ? "log" : "linear";
    this.shown = this.lines.map((line) => {
      const isOn = line.x.map((x, i) => (this.kind.x !== "log" || x > 0)
        && (this.kind.y !== "log" || line.y[i] === null || line.y[i] > 0));
      const off = isOn.filter((on) => !on).length;
      const kept = (column) => column && column.filter((_, i) => isOn[i]);
      const columns = Object.fromEntries(["k", "x", "y", "e", "low", "high"].map((name) => [name, kept(line[name])]));
      const verdict = line.model === null ? null : this.values.verdictOf.get(`${this.metric} ${line.model}`) ?? null;
      const left = verdict && columns.k.map((k) => this.values.leftOut(this.metric, line.model, k) !== "");
      return { ...line, ...columns, off, verdict, left };
    });
  }

  isVisible(line) {
    return !this.figure.view.hidden.has(this.values.groups[line.group][0]);
  }

  draw() {
    this.load();
    this.plot?.destroy();
    this.plot = null;
    const drawn = this.shown.filter((line) => line.x.length && line.y.some((y) => y !== null));
    this.drawn = drawn;
    this.tell();
    this.box.hidden = drawn.length === 0;
    if (!drawn.length) return;
    const data = drawn.length === 1 ? [drawn[0].x, drawn[0].y] : uPlot.join(drawn.map((line) => [line.x, line.y]));
    this.plot = new uPlot(this.options(drawn), data, this.box);
    this.plot.over.addEventListener("click", () => this.clicked(this.plot));
    this.place.setAttribute("aria-label", this.inWords());
  }

  // What is not drawn, and why.
  tell() {
    const parts = [];
    const axis = this.values.axes[this.frame.axis];
    const visible = this.shown.filter((line) => this.isVisible(line));
    const nowhere = visible.filter((line) => line.nowhere);
    for (const line of nowhere.slice(0, 3)) {
      const named = line.nameless.slice(0, 3).join(", ");
      parts.push(`${line.name}: ${line.nowhere} without a place on the axis "${axis}" (${named})`);
    }
    if (nowhere.length > 3) parts.push(`${nowhere.length - 3} more models without a place on this axis`);
    const gaps = visible.reduce((sum, line) => sum + line.gaps, 0);
    if (gaps) parts.push(`${gaps} not finite: gaps`);
    const off = visible.reduce((sum, line) => sum + line.off, 0);
    if (off) parts.push(`${off} at 0 or below, which a logarithmic axis has no room for`);
    const without = this.figure.groups.filter((group) => !this.lines.some((line) => line.group === group));
    if (without.length && without.length < this.figure.groups.length) {
      parts.push(`not measured: ${without.slice(0, 3).map((group) => this.values.groups[group][0]).join(", ")}`
        + (without.length > 3 ? ` and ${without.length - 3} more` : ""));
    }
    if (!this.drawn.length) parts.unshift("Nothing to draw on this axis");
    this.note.textContent = parts.length ? `${parts.join("; ")}.` : "";
  }

  // Its lines' first and last values, for those who cannot see it.
  inWords() {
    const visible = this.drawn.filter((line) => this.isVisible(line));
    const ends = visible.slice(0, 6).map((line) => {
      const finite = line.y.filter((y) => y !== null);
      return `${line.name} from ${valueInWords(finite[0])} to ${valueInWords(finite.at(-1))}`;
    });
    const more = visible.length > 6 ? `; and ${visible.length - 6} more` : "";
    return `${this.about.name} by ${this.values.axes[this.frame.axis]}: ${ends.join("; ")}${more}. Arrow keys read values.`;
  }

  options(drawn) {
    const colours = { quiet: themed("--quiet"), line: themed("--line") };
    const [x, y] = [drawn.map((line) => line.x), drawn.flatMap((line) => [line.y, line.low ?? []])];
    this.scaleX = scaleOf(this.kind.x, this.frame.leastX());
    this.scaleY = scaleOf(this.kind.y, rangeOf(y).least);
    const axis = (kind, scale, apart, isX) => ({
      ...{ stroke: colours.quiet, font: "12px system-ui, sans-serif", ticks: { stroke: colours.line, size: 4 } },
      ...{ grid: { stroke: colours.line, width: 0.5 }, gap: 3, size: isX ? 26 : 56, side: isX ? 2 : 3 },
      splits: (plot, index, low, high) =>
        ticksOf(kind, scale, [low, high], (isX ? plot.bbox.width : plot.bbox.height) / uPlot.pxRatio, apart),
      values: (_, splits) => splits.map(shortNumber),
      filter: (_, splits) => splits,
      ...(isX && this.isLast() ? { label: this.values.axes[this.frame.axis], labelSize: 18, labelGap: 0 } : {}),
      labelFont: "12px system-ui, sans-serif",
    });
    return {
      ...{ width: this.box.clientWidth || 320, height: this.box.clientHeight || 200, legend: { show: false } },
      padding: [8, 12, 0, 0],
      scales: {
        x: { time: false, distr: 100, ...this.scaleX, range: () => this.frame.rangeX() },
        y: { distr: 100, ...this.scaleY, range: (_, low, high) => this.rangeY(low, high) },
      },
      axes: [axis(this.kind.x, this.scaleX, 44, true), axis(this.kind.y, this.scaleY, 22, false)],
      series: [{}, ...drawn.map((line) => ({
        ...{ label: line.name, stroke: this.colour(line), width: 1.6, show: this.isVisible(line) },
        dash: DASHES[this.values.groups[line.group][3]],
        points: {
          show: line.x.length <= FEW_POINTS, size: line.x.length === 1 ? 8 : 4.5, fill: this.colour(line), width: 1,
        },
      }))],
      cursor: {
        ...{ y: false, drag: { x: true, y: false, setScale: false, dist: 6 } },
        ...{ sync: { key: this.frame.key, setSeries: false }, focus: { prox: drawn.length > 1 ? 24 : -1 } },
        hover: { skip: [undefined, null] },
        points: { size: 7, fill: (_, i) => this.colour(drawn[i - 1]) },
        bind: { dblclick: () => () => { this.frame.zoomTo(null); return null; } },
      },
      focus: { alpha: 0.25 },
      hooks: {
        drawAxes: [(plot) => this.drawBelow(plot)],
        draw: [(plot) => this.drawAbove(plot)],
        setCursor: [(plot) => this.hovered(plot)],
        setSelect: [(plot) => this.selected(plot)],
      },
    };
  }

  // Of panels above each other the last has the name of the axis.
  isLast() {
    const { panels, isStacked } = this.figure;
    return !isStacked || panels.at(-1) === this;
  }

  // The values in view and their bands, with some room.
  rangeY(low, high) {
    if (low === null || !Number.isFinite(low)) return [0, 1];
    const [from, to] = this.frame.rangeX();
    const bands = this.drawn.filter((line) => this.isVisible(line) && this.hasBand()).flatMap((line) =>
      line.x.map((x, i) => (x >= from && x <= to ? this.band(line, i) : null)).filter(Boolean));
    const whole = rangeOf([[low, high], ...bands]);
    const [a, b] = [this.scaleY.fwd(whole.low), this.scaleY.fwd(whole.high)];
    const room = b > a ? 0.06 * (b - a) : Math.abs(a) * 0.05 || 1;
    return [this.scaleY.bwd(a - room), this.scaleY.bwd(b + room)];
  }

  selected(plot) {
    if (plot.select.width < 6) return;
    const ends = [plot.select.left, plot.select.left + plot.select.width].map((left) => plot.posToVal(left, "x"));
    plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    this.frame.zoomTo(ends);
  }

  // Bands of standard errors, or of runs; the onset with its interval; chance.
  drawBelow(plot) {
    const { ctx, bbox } = plot;
    const at = (x, y) => [plot.valToPos(x, "x", true), plot.valToPos(y, "y", true)];
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    const visible = this.drawn.filter((line) => this.isVisible(line));
    for (const { onset, model } of this.figure.onsets(this)) {
      const [middle, low, high] = onset.map((place) => this.values.convert(model, place, this.frame.axis));
      const [from, to, line] = [low, high, middle].map((x) => plot.valToPos(x, "x", true));
      ctx.fillStyle = themed("--band");
      ctx.fillRect(from, bbox.top, to - from, bbox.height);
      dashed(ctx, [6, 4], [line, bbox.top], [line, bbox.top + bbox.height]);
    }
    if (this.about.chance !== null) {
      const y = plot.valToPos(this.about.chance, "y", true);
      dashed(ctx, [2, 4], [bbox.left, y], [bbox.left + bbox.width, y]);
    }
    for (const line of visible) {
      if (!this.hasBand() && !line.low) continue;
      const ends = line.x.map((x, i) => this.band(line, i)).map((pair, i) => pair && [line.x[i], ...pair]).filter(Boolean);
      if (ends.length < 2) continue;
      ctx.globalAlpha = 0.18;
      ctx.fillStyle = this.colour(line);
      ctx.beginPath();
      ends.forEach(([x, low]) => ctx.lineTo(...at(x, low)));
      ends.reverse().forEach(([x, , high]) => ctx.lineTo(...at(x, high)));
      ctx.fill();
      ctx.globalAlpha = 1;
    }
    ctx.restore();
  }

  hasBand() {
    return this.drawn.filter((line) => this.isVisible(line)).length <= FEW_LINES;
  }

  // The ends of a line's band at one point; null without one, and where a logarithmic axis has no room for it.
  band(line, i) {
    const ends = line.low ? [line.low[i], line.high[i]]
      : line.e && line.e[i] !== null && line.y[i] !== null ? [line.y[i] - line.e[i], line.y[i] + line.e[i]] : [null];
    return ends[0] === null || (this.kind.y === "log" && ends[0] <= 0) ? null : ends;
  }

  // Checkpoints that the verdict leaves out, grey, and the best one, a star.
  drawAbove(plot) {
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    for (const line of this.drawn.filter((one) => one.verdict && this.isVisible(one))) {
      const { verdict } = line;
      ctx.fillStyle = themed("--left-out");
      line.x.forEach((x, i) => {
        if (line.y[i] === null || !line.left[i]) return;
        ctx.beginPath();
        ctx.arc(plot.valToPos(x, "x", true), plot.valToPos(line.y[i], "y", true), 3 * uPlot.pxRatio, 0, 7);
        ctx.fill();
      });
      const best = this.values.convert(line.model, verdict.best[0], this.frame.axis);
      if (best === null || (this.kind.x === "log" && best <= 0)) continue;
      ctx.save();
      ctx.translate(plot.valToPos(best, "x", true), plot.valToPos(verdict.best[1], "y", true));
      ctx.scale(1.4 * uPlot.pxRatio, 1.4 * uPlot.pxRatio);
      ctx.fillStyle = this.colour(line);
      ctx.strokeStyle = themed("--card");
      ctx.lineWidth = 2.5;
      const star = new Path2D(STAR);
      ctx.stroke(star);
      ctx.fill(star);
      ctx.restore();
    }
    ctx.restore();
  }

  // The lines at the cursor: the point of each that is near, as { line, i }.
  near(plot) {
    return this.drawn.flatMap((line, series) => {
      const index = plot.cursor.idxs[series + 1];
      if (index === null || index === undefined || !this.isVisible(line)) return [];
      const i = line.x.indexOf(plot.data[0][index]);
      return i < 0 ? [] : [{ line, i, top: plot.valToPos(line.y[i], "y") }];
    });
  }

  hovered(plot) {
    const near = plot.cursor.left >= 0 ? this.near(plot) : [];
    const visible = this.drawn.filter((line) => this.isVisible(line));
    this.readout.textContent = near.length && visible.length === 1 ? this.pointInWords(near[0]) : "";
    if (plot.over.matches(":hover")) this.figure.hovered(this, near);
  }

  // A click on a point of a run shows its checkpoint.
  clicked(plot) {
    const { left, top } = plot.cursor;
    const close = this.near(plot)
      .map((point) => ({ ...point, apart: Math.hypot(point.top - top, plot.valToPos(point.line.x[point.i], "x") - left) }))
      .filter((point) => point.line.k && point.apart < 15).sort((a, b) => a.apart - b.apart)[0];
    if (close) this.figure.page.checkpoint.go(close.line.model, close.line.k[close.i]);
  }

  pointInWords({ line, i }) {
    const runs = line.runs ? `, mean of ${line.runs[i]} runs, ${valueInWords(line.low[i])} to ${valueInWords(line.high[i])}` : "";
    return valueInWords(line.y[i], line.e?.[i]) + (line.runs?.[i] > 1 ? runs : "");
  }

  // Show or hide lines; draw again what has changed.
  refresh() {
    if (!this.plot) return;
    this.plot.batch(() => {
      this.drawn.forEach((line, index) => {
        const show = this.isVisible(line);
        if (this.plot.series[index + 1].show !== show) this.plot.setSeries(index + 1, { show }, false);
      });
      const [min, max] = this.frame.rangeX();
      this.plot.setScale("x", { min, max });
    });
    this.tell();
    this.place.setAttribute("aria-label", this.inWords());
  }

  resize() {
    const [width, height] = [this.box.clientWidth, this.box.clientHeight];
    if (this.plot && width && (width !== this.plot.width || height !== this.plot.height)) {
      this.plot.setSize({ width, height });
    }
  }
}
