// All that is known of one checkpoint: values, arrays, questions, what changed since the one before, files, commands.

class CheckpointView {
  constructor(page) {
    this.page = page;
    this.element = document.querySelector("#checkpoint");
    this.element.addEventListener("keydown", ({ key }) => { if (key === "Escape") this.close(); });
    this.map = new ColourMap(page.values.map);
  }

  // The checkpoint that the address names, by model and name; none: nothing is shown.
  update() {
    const { view, values } = this.page;
    // Either name may hold the sign between them.
    const place = ({ name, names }) => (view.point.startsWith(`${name}~`) ? names.indexOf(view.point.slice(name.length + 1)) : -1);
    const model = values.models.findIndex((one) => place(one) >= 0);
    const k = model < 0 ? -1 : place(values.models[model]);
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

  // Draw the arrays again, in other colours.
  redraw() {
    this.shown = "";
    this.update();
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
    this.addArrays(model, k);
    this.addChanges(model, k);
    this.addAnswers(model, k);
    this.addFiles(model, k);
    this.addCommands(model, k);
  }

  // A row for each metric that the checkpoint has.
  addValues(model, k, before) {
    const { values } = this.page;
    const compared = before < 0 ? [] : [`since ${values.models[model].names[before]}`];
    const body = this.table("Values of this checkpoint", ["metric", "value", ...compared, "note"]);
    values.metrics.forEach((about, metric) => {
      const own = values.at(metric, model, k);
      if (!own) return;
      const earlier = before < 0 ? null : values.at(metric, model, before);
      const change = earlier && own.y !== null && earlier.y !== null ? own.y - earlier.y : null;
      const cells = [about.name, valueInWords(own.y, own.e)];
      if (compared.length) cells.push(change === null ? "" : `${change >= 0 ? "+" : "−"}${valueInWords(Math.abs(change))}`);
      this.row(body, [...cells, values.leftOut(metric, model, k)]);
    });
  }

  // Each array as a line beside that of the checkpoint before it, or as cells.
  addArrays(model, k) {
    const { values } = this.page;
    const own = values.arrays.flatMap((array) => array.models.filter((one) => one.model === model)
      .map((content) => new ModelArray(array, content, values)));
    if (!own.length) return;
    this.add(this.element, "h4", "Arrays");
    const there = own.filter((array) => array.k.includes(k));
    if (!there.length) {
      this.add(this.element, "p", `The page has arrays of ${own[0].k.length} of this model's checkpoints, and not of `
        + "this one: the full arrays lie beside its result file.");
      return;
    }
    const grid = this.add(this.element, "div", "");
    grid.className = "small-maps";
    for (const array of there) {
      const i = array.k.indexOf(k);
      const place = this.add(grid, "div", "");
      this.add(place, "div", array.name).className = "panel-head";
      const canvas = this.add(place, "canvas", "");
      canvas.setAttribute("role", "img");
      if (array.entries.length > 1) this.drawCells(canvas, array, i);
      else this.drawLine(canvas, array, i);
      const finite = array.rows[i].filter((value) => value !== null);
      canvas.setAttribute("aria-label", `${array.name}: ${array.names.length} entries, `
        + `from ${valueInWords(rangeOf([finite]).low)} to ${valueInWords(rangeOf([finite]).high)}`);
      const beside = i > 0 && array.entries.length === 1 ? `grey: ${values.models[model].names[array.k[i - 1]]}` : "";
      this.add(place, "p", beside).className = "panel-note";
    }
  }

  drawLine(canvas, array, i) {
    const surface = preparedCanvas(canvas);
    const { ctx, box } = surface;
    const rows = [i - 1, i].filter((one) => one >= 0).map((one) => array.rows[one]);
    const { scale, kind, low, high, share } = valueScale(rows, this.page.view.y);
    if (!(low <= high)) return;
    const [entries] = array.entries;
    const scaleX = scaleOf(entries.isMean ? "log" : "linear", 1);
    const at = entries.firsts.map((first) => scaleX.fwd(first + 1));
    const across = at.at(-1) - at[0] || 1;
    const xs = at.map((x) => box.left + (at.length > 1 ? (box.width * (x - at[0])) / across : box.width / 2));
    const colours = [...(rows.length > 1 ? [themed("--left-out")] : []), this.page.values.groups[this.page.values.models[array.model].group][isDark() ? 2 : 1]];
    rows.forEach((row, n) => {
      ctx.strokeStyle = ctx.fillStyle = colours[n];
      ctx.lineWidth = n + 1 === rows.length ? 1.8 : 1.2;
      strokeLine(ctx, row.map((value, j) => (value === null ? null : [xs[j], box.top + box.height * (1 - share(value))])));
    });
    drawAxis(surface, "left", scaleTicks(kind, scale, low, high, box.height, 22), "");
    const ticks = [];
    xs.forEach((x, j) => {
      if (!ticks.length || x - box.left - ticks.at(-1)[0] >= 36) ticks.push([x - box.left, entries.short[j]]);
    });
    drawAxis(surface, "bottom", ticks, array.axis);
  }

  drawCells(canvas, array, i) {
    const surface = preparedCanvas(canvas);
    const { ctx, box } = surface;
    const [down, across] = array.entries;
    const { share } = valueScale(array.rows, this.page.view.y);
    const [width, height] = [box.width / across.short.length, box.height / down.short.length];
    array.rows[i].forEach((value, place) => {
      if (value === null) return;
      const [row, column] = [Math.floor(place / across.short.length), place % across.short.length];
      ctx.fillStyle = this.map.at(share(value));
      ctx.fillRect(box.left + column * width, box.top + box.height - (row + 1) * height, width + 0.4, height + 0.4);
    });
    drawAxis(surface, "left", namedTicks(down.short, box.height, 16), down.axis);
    drawAxis(surface, "bottom", namedTicks(across.short, box.width, 30), across.axis);
  }

  // The documents whose losses changed most since the checkpoint before that the page has losses of.
  addChanges(model, k) {
    const { values } = this.page;
    const found = values.changes.find(([one, number]) => one === model && number === k);
    if (!found || !found[3].length) return;
    const before = values.models[model].names[found[2]];
    this.add(this.element, "h4", `Documents that changed most since ${before}`);
    const body = this.table("Documents that changed most", ["document", `loss at ${before}`, "loss here", "change"]);
    for (const [document, earlier, now] of found[3]) {
      const change = now - earlier;
      this.row(body, [`number ${document + 1}`, valueInWords(earlier), valueInWords(now),
        `${change < 0 ? "better by" : "worse by"} ${valueInWords(Math.abs(Number(change.toPrecision(3))))}`]);
    }
  }

  // Questions with the options' probabilities, of the checkpoints that have some in the page.
  addAnswers(model, k) {
    const { answers, questions, models } = this.page.values;
    const own = answers.filter((one) => one.model === model);
    if (!own.length) return;
    const here = own.filter((one) => one.k === k);
    if (!here.length) {
      this.add(this.element, "h4", "Questions");
      const line = this.add(this.element, "p", "The page has questions of these checkpoints: ");
      for (const [number, kind] of new Map(own.map((one) => [one.k, one.kind]))) {
        this.button(line, `${models[model].names[number]} (${kind})`, () => this.go(model, number));
      }
      return;
    }
    for (const { task, kind, shown, before, changed } of here) {
      this.add(this.element, "h4", `Questions of ${task}, at the ${kind} checkpoint with samples`);
      if (changed.length) {
        const name = models[model].names[before];
        this.add(this.element, "p", `Changed most since ${name}:`);
        const body = this.table(`Questions of ${task} that changed most`, ["question", name, "here"]);
        for (const [number, ...of] of changed) {
          const question = questions[task][number];
          this.answerRow(body, question, [of.slice(0, 2), of.slice(2)]);
        }
      }
      this.add(this.element, "p", changed.length ? "The first ones:" : "");
      const body = this.table(`Questions of ${task}`, ["question", "answer"]);
      for (const [number, ...answer] of shown) this.answerRow(body, questions[task][number], [answer]);
    }
  }

  answerRow(body, [text, options, right], answers) {
    const row = this.row(body, [text, ...answers.map(() => "")]);
    row.cells[0].className = "question";
    answers.forEach(([said, isRight], i) => {
      const cell = row.cells[i + 1];
      const mark = isRight === null ? "" : isRight ? "right" : "wrong";
      this.add(cell, "strong", mark).className = mark;
      if (typeof said === "string") {
        this.add(cell, "div", said);
        if (options.length) this.add(cell, "div", `expected: ${options[0]}`).className = "quiet";
        return;
      }
      options.forEach((option, place) => {
        const line = this.add(cell, "div", "");
        line.className = place === right ? "option expected" : "option";
        const share = said[place];
        line.style.setProperty("--share", `${100 * (share ?? 0)}%`);
        line.append(`${share === null || share === undefined ? "not finite" : valueInWords(share)}  ${option}`);
        if (place === right) this.add(line, "span", " (the right one)").className = "quiet";
      });
    });
  }

  // The rows of the table of sources: of this model, this name.
  addFiles(model, k) {
    const section = document.querySelector("#sources");
    if (!section) return;
    this.add(this.element, "h4", "Where it comes from");
    const titles = [...section.querySelectorAll("th")].map((title) => title.textContent);
    const [ofModel, ofName] = ["model", "revision"].map((title) => titles.indexOf(title));
    const { name, names } = this.page.values.models[model];
    const rows = JSON.parse(section.querySelector("script").textContent)
      .filter((row) => row[ofModel] === name && row[ofName] === names[k]);
    const beside = new Set(this.page.values.answers.filter((one) => one.model === model && one.k === k).map(({ file }) => file));
    for (const row of rows) {
      const line = this.add(this.element, "p", "");
      row.forEach((cell, place) => {
        if (cell === "" || place === ofModel || place === ofName || titles[place] === "#") return;
        this.add(line, "span", `${titles[place]}: `).className = "quiet";
        if (typeof cell === "string") line.append(`${cell}; `);
        else this.addLinks(line, cell, beside, row[titles.indexOf("lmsat")]);
      });
    }
  }

  // The result file, and what lies beside it: the full arrays of lmsat's, and samples, which have its date in their names.
  addLinks(line, [text, href], samples, isOurs) {
    const folder = href.slice(0, href.lastIndexOf("/") + 1);
    const date = decodeURIComponent(href.slice(folder.length)).match(/_(\d{4}-.*)\.json$/)?.[1];
    this.link(line, href, text);
    if (!date) return;
    const hasArrays = isOurs && this.page.values.arrays_beside && this.page.values.arrays.length;
    if (hasArrays) this.link(line, `${folder}arrays_${encodeURIComponent(date)}.safetensors`, "its arrays");
    [...samples].filter((file) => file.includes(date)).forEach((file) => this.link(line, folder + encodeURIComponent(file), file));
  }

  link(line, href, text) {
    if (line.querySelector("a")) line.append("; ");
    Object.assign(this.add(line, "a", text), { href });
  }

  addCommands(model, k) {
    const { commands, commands_of: all, models } = this.page.values;
    const own = all[model] ?? [];
    const numbers = Array.isArray(own[0]) ? own[k] : own;
    if (!numbers?.length) return;
    this.add(this.element, "h4", "Measure it again");
    for (const number of numbers) {
      this.add(this.element, "pre", commands[number].replaceAll("\0", models[model].names[k])).tabIndex = 0;
    }
  }

  table(title, columns) {
    const place = this.add(this.element, "div", "");
    Object.assign(place, { className: "scroll", tabIndex: 0 });
    place.setAttribute("role", "region");
    place.setAttribute("aria-label", title);
    const table = this.add(place, "table", "");
    const head = table.createTHead().insertRow();
    for (const text of columns) this.add(head, "th", text).scope = "col";
    return table.createTBody();
  }

  row(body, cells) {
    const row = body.insertRow();
    for (const text of cells) row.insertCell().textContent = text;
    return row;
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
