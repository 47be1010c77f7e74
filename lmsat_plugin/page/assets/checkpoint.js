// All that is known of one checkpoint: its values, how they changed since the checkpoint before, and its result files.

class CheckpointView {
  constructor(page) {
    this.page = page;
    this.element = document.querySelector("#checkpoint");
    this.element.addEventListener("keydown", ({ key }) => { if (key === "Escape") this.close(); });
  }

  // The checkpoint that the address names, by model and name; none: nothing is shown.
  update() {
    const { view, values } = this.page;
    const [name, checkpoint] = view.point.split("~");
    const model = values.models.findIndex((one) => one.name === name);
    const k = model < 0 ? -1 : values.models[model].names.indexOf(checkpoint ?? "");
    this.element.hidden = k < 0;
    if (k >= 0 && this.shown !== view.point) this.show(model, k);
    this.shown = k < 0 ? "" : view.point;
  }

  go(model, k) {
    const { name, names } = this.page.values.models[model];
    this.page.view.change({ point: `${name}~${names[k]}` });
    this.element.scrollIntoView({ block: "nearest" });
    this.element.querySelector("h3").focus();
  }

  close() {
    this.page.view.change({ point: "" });
  }

  show(model, k) {
    const { values } = this.page;
    const { name, names, at, axis, tokens, parameters } = values.models[model];
    this.element.replaceChildren();
    const title = this.add(this.element, "h3", `${name}, ${names[k]}`);
    title.tabIndex = -1;
    const places = [at[k] !== null && axis ? placeInWords(axis, at[k]) : "a place that no name states"];
    if (tokens && tokens[k] !== null && axis !== "tokens") places.push(placeInWords("tokens", tokens[k]));
    const flops = values.xOf(model, "flops")[k];
    if (parameters && flops !== null) places.push(placeInWords("flops", flops));
    this.add(this.element, "p", places.join(", "));
    const buttons = this.add(this.element, "p", "");
    const before = at[k] !== null && k > 0 && at[k - 1] !== null ? k - 1 : -1;
    if (before >= 0) this.button(buttons, `Before: ${names[before]}`, () => this.go(model, before));
    if (k + 1 < names.length && at[k + 1] !== null) this.button(buttons, `After: ${names[k + 1]}`, () => this.go(model, k + 1));
    this.button(buttons, "Close", () => this.close());
    this.addValues(model, k, before);
    this.addFiles(model, k);
  }

  // A row for each metric that the checkpoint has.
  addValues(model, k, before) {
    const { values } = this.page;
    const place = this.add(this.element, "div", "");
    Object.assign(place, { className: "scroll", tabIndex: 0 });
    place.setAttribute("role", "region");
    place.setAttribute("aria-label", "Values of this checkpoint");
    const table = this.add(place, "table", "");
    const head = table.createTHead().insertRow();
    const compared = before < 0 ? [] : [`since ${values.models[model].names[before]}`];
    for (const text of ["metric", "value", ...compared, "note"]) this.add(head, "th", text).scope = "col";
    const body = table.createTBody();
    values.metrics.forEach((about, metric) => {
      const own = values.at(metric, model, k);
      if (!own) return;
      const earlier = before < 0 ? null : values.at(metric, model, before);
      const row = body.insertRow();
      const change = earlier && own.y !== null && earlier.y !== null ? own.y - earlier.y : null;
      const cells = [about.name, valueInWords(own.y, own.e)];
      if (compared.length) cells.push(change === null ? "" : `${change >= 0 ? "+" : "−"}${valueInWords(Math.abs(change))}`);
      for (const text of [...cells, values.leftOut(metric, model, k)]) row.insertCell().textContent = text;
    });
  }

  // The rows of the table of sources: of this model, this name.
  addFiles(model, k) {
    const section = document.querySelector("#sources");
    if (!section) return;
    const titles = [...section.querySelectorAll("th")].map((title) => title.textContent);
    const [ofModel, ofName] = ["model", "revision"].map((title) => titles.indexOf(title));
    const { name, names } = this.page.values.models[model];
    const rows = JSON.parse(section.querySelector("script").textContent)
      .filter((row) => row[ofModel] === name && row[ofName] === names[k]);
    for (const row of rows) {
      const line = this.add(this.element, "p", "");
      row.forEach((cell, place) => {
        if (cell === "" || place === ofModel || place === ofName || titles[place] === "#") return;
        this.add(line, "span", `${titles[place]}: `).className = "quiet";
        if (typeof cell === "string") line.append(`${cell}; `);
        else Object.assign(this.add(line, "a", cell[0]), { href: cell[1] });
      });
    }
  }

  button(place, text, act) {
    const button = this.add(place, "button", text);
    button.type = "button";
    button.addEventListener("click", act);
    place.append(" ");
  }

  add(place, tag, text) {
    const element = place.appendChild(document.createElement(tag));
    element.textContent = text;
    return element;
  }
}
