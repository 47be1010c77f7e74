// The page's charts: the bar with what all of them share, the explorer of any metric, and the figures.

class ChartPage {
  constructor(content) {
    this.values = new Values(content);
    this.view = new View(this.values.groups.map(([name]) => name));
    this.tip = new Tip();
    this.voice = document.body.appendChild(document.createElement("div"));
    this.voice.className = "aside";
    this.voice.setAttribute("role", "status");
    const axes = this.values.axesThere();
    const counts = Object.keys(this.values.axes).map((axis) =>
      [this.values.models.filter((model) => model.axis === axis).length, axis]);
    this.axis = counts.reduce((most, one) => (one[0] > most[0] ? one : most))[1];
    this.bar = new Bar(this, axes);
    const all = this.values.groups.map((_, group) => group);
    this.figures = [...document.querySelectorAll("figure[data-panels]")].map((element) => {
      const { panels, groups, axes } = JSON.parse(element.dataset.panels);
      return new ChartFigure(element, panels, groups ?? all, this, axes);
    });
    this.explorer = new Explorer(this, all);
    this.checkpoint = new CheckpointView(this);
    this.arrays = new ArrayFigure(this);
    this.figures.unshift(this.explorer.figure);
    if (this.values.arrays.length) this.figures.push(this.arrays);
    this.figures.forEach((figure) => addMenu(figure));
    document.querySelectorAll(".figures > figure:not([data-panels])").forEach((element) => addImageMenu(element));
    this.view.listeners.push(() => this.changed());
    this.seen = new Set();
    const observer = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) {
        const figure = this.figures.find((one) => one.element === target);
        if (isIntersecting) this.seen.add(figure);
        else this.seen.delete(figure);
        if (isIntersecting && figure.isStale) figure.draw();
      }
    }, { rootMargin: "200px" });
    this.figures.forEach((figure) => {
      figure.element.classList.add("live");
      observer.observe(figure.element);
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.redraw());
    this.remember();
    this.changed();
    if (location.hash.includes("=") && this.view.at) document.getElementById(this.view.at)?.scrollIntoView();
  }

  // What decides how charts are drawn; other changes only hide lines or zoom.
  remember() {
    const { x, scale, y, runs, metrics } = this.view;
    const drawn = JSON.stringify([x, scale, y, runs]);
    const changed = drawn !== this.drawn;
    [this.drawn, this.shownMetrics] = [drawn, JSON.stringify(metrics)];
    return changed;
  }

  changed() {
    const metrics = this.shownMetrics;
    if (this.remember()) this.figures.forEach((figure) => figure.spoil());
    if (metrics !== this.shownMetrics) this.explorer.show();
    this.bar.update();
    this.checkpoint.update();
    this.refreshAll();
  }

  redraw() {
    this.figures.forEach((figure) => figure.spoil());
    this.bar.update();
    this.checkpoint.redraw();
    this.refreshAll();
  }

  // What is in view now, the rest when there is time.
  refreshAll() {
    this.figures.forEach((figure) => figure.updateVisibility());
    const waiting = this.figures.filter((figure) => !this.seen.has(figure));
    this.figures.filter((figure) => this.seen.has(figure)).forEach((figure) => figure.refresh());
    waiting.forEach((figure) => { figure.waits = true; });
    const later = window.requestIdleCallback ?? ((work) => setTimeout(work, 30));
    const next = () => {
      const figure = this.figures.find((one) => one.waits);
      if (!figure) return;
      figure.waits = false;
      if (!figure.element.hidden) figure.refresh();
      later(next);
    };
    later(next);
  }

  refresh(figure) {
    this.tip.hide();
    this.view.change();
    if (!this.seen.has(figure)) figure.refresh();
  }

  say(text) {
    this.voice.textContent = text;
  }
}

// The bar above the figures: axes, scales, runs, and the models.
class Bar {
  constructor(page, axes) {
    this.page = page;
    this.element = document.querySelector(".chart-bar");
    this.element.closest("section").hidden = this.element.hidden = false;
    const { view, values } = page;
    const choices = this.element.appendChild(document.createElement("div"));
    choices.className = "choices";
    const usual = { scale: "as fits", y: "as usual", runs: "mean of runs" };
    this.choose(choices, "x axis", "x", axes.map((axis) => [axis === page.axis ? "" : axis, values.axes[axis]]));
    this.choose(choices, "scale", "scale", [["", usual.scale], ...Object.entries(SCALES)]);
    this.choose(choices, "y axis", "y", [["", usual.y], ["linear", SCALES.linear], ["log", SCALES.log]]);
    if (values.hasRuns) this.choose(choices, "runs", "runs", [["", usual.runs], ["each", "each run"]]);
    if (document.body.dataset.reload) this.addReloading(choices);
    this.reset = choices.appendChild(document.createElement("button"));
    Object.assign(this.reset, { type: "button", textContent: "Reset the view" });
    this.reset.addEventListener("click", () => view.change({
      ...{ x: "", scale: "", y: "", runs: "", hidden: new Set(), zoom: new Map(), metrics: [], at: "" },
      ...{ point: "", array: "", as: "" },
    }));
    this.legend = this.element.appendChild(document.createElement("div"));
    this.legend.className = "legend";
    this.legend.setAttribute("role", "group");
    this.legend.setAttribute("aria-label",
      "Models: Enter hides or shows one, Alt and Enter shows it alone, arrow keys go on");
    this.names = values.groups.map(([name], number) => this.addName(name, number));
  }

  // A page of results that still come loads itself again, unless someone is at work on it.
  addReloading(place) {
    const { view } = this.page;
    const seconds = Number(document.body.dataset.reload);
    const label = place.appendChild(document.createElement("label"));
    this.live = label.appendChild(document.createElement("input"));
    this.live.type = "checkbox";
    label.append(` load again every ${seconds} s`);
    this.live.addEventListener("change", () => view.change({ live: this.live.checked ? "" : "off" }));
    let busy = 0;
    for (const kind of ["pointermove", "pointerdown", "keydown", "wheel", "scroll"]) {
      addEventListener(kind, () => { busy = Date.now(); }, { passive: true });
    }
    const pause = Math.min(3000, 500 * seconds);
    let due = Date.now() + 1000 * seconds;
    setInterval(() => {
      const open = document.querySelector("details[open], .view-table, #metric-list:not([hidden])");
      if (view.live !== "off" && !open && Date.now() > due && Date.now() > busy + pause) {
        due = Infinity;
        location.reload();
      }
    }, 250);
  }

  choose(place, title, name, options) {
    if (options.length < 2) return;
    const label = place.appendChild(document.createElement("label"));
    label.append(`${title} `);
    const select = label.appendChild(document.createElement("select"));
    select.name = name;
    for (const [value, text] of options) select.add(new Option(text, value));
    // Places on another axis, or on another scale, are other places.
    const zoom = ["x", "scale"].includes(name);
    select.addEventListener("change", () =>
      this.page.view.change({ [name]: select.value, ...(zoom ? { zoom: new Map() } : {}) }));
  }

  addName(name, number) {
    const { view } = this.page;
    const button = this.legend.appendChild(document.createElement("button"));
    Object.assign(button, { type: "button", tabIndex: number ? -1 : 0 });
    button.append(document.createElement("i"), name);
    button.title = "Click: hide or show. Alt+click or double click: this one alone.";
    button.addEventListener("click", (event) => (event.altKey ? view.single(name) : view.toggle(name)));
    button.addEventListener("dblclick", (event) => { if (!event.altKey) view.single(name); });
    button.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (event.key === "Enter" && event.altKey) {
        event.preventDefault();
        view.single(name);
      } else if (step) {
        event.preventDefault();
        const next = this.names[(number + step + this.names.length) % this.names.length];
        this.names.forEach((other) => { other.tabIndex = other === next ? 0 : -1; });
        next.focus();
      }
    });
    return button;
  }

  update() {
    const { view, values } = this.page;
    for (const select of this.element.querySelectorAll("select")) {
      select.value = view[select.name];
      if (select.selectedIndex < 0) select.value = "";
    }
    if (this.live) this.live.checked = view.live !== "off";
    this.names.forEach((button, number) => {
      button.setAttribute("aria-pressed", String(!view.hidden.has(values.groups[number][0])));
      button.firstChild.style.background = values.groups[number][isDark() ? 2 : 1];
    });
    this.reset.disabled = !view.address().includes("=");
  }
}

// A chart of any metric, found by its name; further ones below it, on the same axis.
class Explorer {
  constructor(page, groups) {
    this.page = page;
    this.element = document.querySelector("#explore");
    this.element.hidden = false;
    this.input = this.element.querySelector("input");
    this.list = this.element.querySelector("ul");
    this.names = page.values.metrics.map(({ name }) => name);
    this.figure = new ChartFigure(this.element.querySelector("figure"), this.chosen(), groups, page);
    this.label();
    this.found = [];
    this.input.addEventListener("input", () => this.search());
    this.input.addEventListener("focus", () => this.search());
    this.input.addEventListener("blur", () => setTimeout(() => this.close(), 150));
    this.input.addEventListener("keydown", (event) => this.pressed(event));
    const left = page.values.left_out;
    if (left) {
      const note = this.element.appendChild(document.createElement("p"));
      note.textContent = `${left.toLocaleString("en")} more metrics are in values.csv alone, for want of room.`;
    }
  }

  chosen() {
    const known = this.page.view.metrics.map((name) => this.names.indexOf(name)).filter((metric) => metric >= 0);
    const usual = this.names.findIndex((name) => name.startsWith("lmsat_loss loss"));
    return known.length ? known : [Math.max(0, usual)];
  }

  show() {
    this.figure.setMetrics(this.chosen());
    this.label();
  }

  // Each panel of the explorer can be taken away again.
  label() {
    for (const panel of this.figure.panels) {
      if (this.figure.panels.length < 2) continue;
      const button = panel.head.appendChild(document.createElement("button"));
      Object.assign(button, { type: "button", textContent: "Remove" });
      button.setAttribute("aria-label", `Remove the chart of ${panel.about.name}`);
      button.addEventListener("click", () => this.page.view.change({
        metrics: this.figure.panels.filter((other) => other !== panel).map((other) => other.about.name),
      }));
    }
  }

  search() {
    const words = this.input.value.toLowerCase().split(/\s+/).filter(Boolean);
    const fits = this.names.map((name, metric) => [name.toLowerCase(), metric])
      .filter(([name]) => words.every((word) => name.includes(word)));
    this.found = fits.slice(0, 50).map(([, metric]) => metric);
    this.active = this.found.length && words.length ? 0 : -1;
    this.list.replaceChildren(...this.found.map((metric, i) => {
      const option = document.createElement("li");
      Object.assign(option, { id: `metric-${i}`, textContent: this.names[metric] });
      option.setAttribute("role", "option");
      option.addEventListener("pointerdown", (event) => {
        event.preventDefault();
        this.choose(metric);
      });
      return option;
    }));
    if (fits.length > 50 || !fits.length) {
      const more = this.list.appendChild(document.createElement("li"));
      more.className = "more";
      more.textContent = fits.length ? `and ${fits.length - 50} more: type more of the name` : "No metric has this name";
    }
    this.list.hidden = false;
    this.input.setAttribute("aria-expanded", "true");
    this.mark();
  }

  mark() {
    [...this.list.children].forEach((option, i) => option.setAttribute("aria-selected", String(i === this.active)));
    if (this.active >= 0) {
      this.input.setAttribute("aria-activedescendant", `metric-${this.active}`);
      this.list.children[this.active].scrollIntoView({ block: "nearest" });
    } else {
      this.input.removeAttribute("aria-activedescendant");
    }
  }

  close() {
    this.list.hidden = true;
    this.input.setAttribute("aria-expanded", "false");
  }

  pressed(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      if (this.list.hidden) this.search();
      this.active = Math.max(0, Math.min(this.found.length - 1, this.active + step));
      this.mark();
    } else if (event.key === "Enter" && this.active >= 0) {
      this.choose(this.found[this.active]);
    } else if (event.key === "Escape") {
      this.close();
    } else {
      return;
    }
    event.preventDefault();
  }

  // A metric is shown in the place of the one before; with "beside" ticked, below it.
  choose(metric) {
    const before = this.figure.panels.map((panel) => panel.about.name);
    const isAdded = this.element.querySelector("input[type=checkbox]").checked;
    const names = isAdded ? [...before.filter((name) => name !== this.names[metric]), this.names[metric]]
      : [this.names[metric]];
    this.input.value = "";
    this.close();
    this.page.view.change({ metrics: names });
  }
}

// The view's files, and its table, before the figure's own files.
function addMenu(figure) {
  const menu = figure.element.querySelector(".menu");
  const list = menu.querySelector("ul");
  const items = [
    ["PNG of this view", () => savePng(figure)],
    ["CSV of this view", () => saveCsv(figure)],
    ["Values of this view as a table", () => toggleTable(figure)],
  ];
  list.prepend(...items.map(([text, act]) => {
    const item = document.createElement("li");
    const button = item.appendChild(document.createElement("button"));
    Object.assign(button, { type: "button", textContent: text });
    button.addEventListener("click", () => {
      menu.open = false;
      act();
    });
    return item;
  }));
}

// Of a figure that stays an image, the image as PNG.
function addImageMenu(element) {
  const list = element.querySelector(".menu ul");
  const button = document.createElement("button");
  Object.assign(button, { type: "button", textContent: "PNG of this figure" });
  button.addEventListener("click", () => {
    element.querySelector(".menu").open = false;
    saveImage(element.querySelector("img"), element.dataset.figure);
  });
  const item = document.createElement("li");
  item.append(button);
  list.prepend(item);
}

addEventListener("pointerdown", (event) => {
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
});

const content = document.querySelector("#chart-data");
// An old browser shows the images.
if (content && document.createElement("canvas").getContext?.("2d")) {
  window.charts = new ChartPage(JSON.parse(content.textContent));
}
