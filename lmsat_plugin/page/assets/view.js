// What the reader has chosen: all of it is in the address after #, so that a link leads to the same view.

// In the address: x, scale, y, runs; live ("off": the page does not load itself again); hide or only (names of models);
// point (a model and its checkpoint, whose values are shown); array, and as (what it is drawn as); m (metrics of the
// explorer); zoom (a figure and the ends of its x axis); table.NAME (what a table is sorted and filtered by); at (where the page stands). An address without "=" is an anchor of the page, as before.
const CHOICES = ["x", "scale", "y", "runs", "live", "point", "array", "as"];

class View {
  constructor(groups) {
    this.groups = groups;
    this.listeners = [];
    this.read(location.hash);
    addEventListener("hashchange", () => this.moved());
    document.addEventListener("tablechange", ({ detail: { name, text } }) => {
      if (text) this.tables.set(name, text);
      else this.tables.delete(name);
      history.replaceState(null, "", this.address());
    });
  }

  read(hash) {
    const known = new URLSearchParams(hash.includes("=") ? hash.slice(1) : "");
    for (const name of CHOICES) this[name] = known.get(name) ?? "";
    this.tables = new Map([...known].filter(([name]) => name.startsWith("table.")));
    this.hidden = new Set(known.has("only")
      ? this.groups.filter((name) => !known.getAll("only").includes(name)) : known.getAll("hide"));
    if (this.groups.every((name) => this.hidden.has(name))) this.hidden.clear();
    this.metrics = known.getAll("m");
    this.zoom = new Map();
    for (const text of known.getAll("zoom")) {
      const [figure, low, high] = text.split("~");
      if (Number(low) < Number(high)) this.zoom.set(figure, [Number(low), Number(high)]);
    }
    this.at = known.get("at") ?? (hash.includes("=") ? "" : decodeURIComponent(hash.slice(1)));
  }

  address() {
    const known = new URLSearchParams();
    for (const name of CHOICES) if (this[name]) known.set(name, this[name]);
    const shown = this.groups.filter((name) => !this.hidden.has(name));
    const only = shown.length < this.groups.length - shown.length;
    for (const name of only ? shown : this.groups.filter((one) => this.hidden.has(one))) {
      known.append(only ? "only" : "hide", name);
    }
    this.metrics.forEach((name) => known.append("m", name));
    this.zoom.forEach(([low, high], figure) => known.append("zoom", `${figure}~${low}~${high}`));
    this.tables.forEach((text, name) => known.append(name, text));
    if (!known.size) return this.at ? `#${encodeURIComponent(this.at)}` : "#";
    if (this.at) known.set("at", this.at);
    return `#${known}`;
  }

  // Change something, write it into the address, and tell the charts.
  change(changes = {}) {
    Object.assign(this, changes);
    history.replaceState(null, "", this.address());
    this.listeners.forEach((tell) => tell());
  }

  // Someone has followed a link within the page, or has pasted an address.
  moved() {
    if (location.hash.includes("=")) {
      this.read(location.hash);
      this.change();
    } else {
      this.change({ at: decodeURIComponent(location.hash.slice(1)) });
    }
  }

  toggle(name) {
    if (!this.hidden.delete(name)) this.hidden.add(name);
    if (this.hidden.size === this.groups.length) this.hidden.clear();
    this.change();
  }

  // Show one model alone, or all again if it is alone already.
  single(name) {
    const alone = this.groups.length - this.hidden.size === 1 && !this.hidden.has(name);
    this.change({ hidden: new Set(alone ? [] : this.groups.filter((other) => other !== name)) });
  }
}
