// The values that the page holds, and the lines through them on an axis.

// Several runs of a model are one line, their mean, or a line each. A line has columns of the same length: x, y, and
// e (standard errors) or low and high (of runs); k are the checkpoints' numbers, and null for a mean.
class Values {
  constructor(content) {
    Object.assign(this, content);
    this.members = this.groups.map((_, group) =>
      this.models.flatMap((model, number) => (model.group === group ? [number] : [])));
    this.hasRuns = this.members.some((members) => members.length > 1);
    this.verdictOf = new Map(this.verdicts.map((verdict) => [`${verdict.metric} ${verdict.model}`, verdict]));
    // Of a model that is judged by several scores none marks the charts of others.
    this.onlyVerdictOf = new Map(this.verdicts
      .filter(({ model }) => this.verdicts.filter((other) => other.model === model).length === 1)
      .map((verdict) => [verdict.model, verdict]));
    this.places = new Map();
  }

  // The axes on which some model has a place, in the order of this.axes.
  axesThere() {
    return Object.keys(this.axes).filter((axis) =>
      this.models.some((_, model) => this.xOf(model, axis).some((x) => x !== null)));
  }

  // The place of each checkpoint of a model; null where it has none.
  xOf(model, axis) {
    const key = `${axis} ${model}`;
    if (!this.places.has(key)) this.places.set(key, this.placesOn(this.models[model], axis));
    return this.places.get(key);
  }

  placesOn(model, axis) {
    const none = model.at.map(() => null);
    const tokens = model.tokens || (model.axis === "tokens" ? model.at : none);
    if (axis === "tokens") return tokens;
    if (axis === "flops") return tokens.map((seen) =>
      (seen === null || !model.parameters ? null : 6 * model.parameters * seen));
    if (axis === "share") {
      const last = Math.max(...model.at.filter((at) => at !== null));
      return last > 0 ? model.at.map((at) => (at === null ? null : at / last)) : none;
    }
    return model.axis === axis ? model.at : none;
  }

  // A place on a model's own axis, on another one: between two checkpoints on the straight line between them.
  convert(model, at, axis) {
    const own = this.models[model].at;
    const known = this.xOf(model, axis).flatMap((x, k) => (x === null || own[k] === null ? [] : [[own[k], x]]));
    return known.length ? interpolate(known.map(([a]) => a), known.map(([, x]) => x), at) : null;
  }

  // The line of one model, and what of its values is not on it: those without a place, and those not finite.
  lineOf(metric, model, axis) {
    const entry = this.values[metric].find(([number]) => number === model);
    if (!entry) return null;
    const [, numbers, values, errors] = entry;
    const places = this.xOf(model, axis);
    const points = values
      .map((y, i) => ({ k: numbers ? numbers[i] : i, y, e: errors ? errors[i] : null }))
      .map((point) => ({ ...point, x: places[point.k] }));
    const placed = points.filter((point) => point.x !== null).sort((a, b) => a.x - b.x);
    const kept = placed.filter((point, i) => i + 1 === placed.length || placed[i + 1].x > point.x);
    const { name, group } = this.models[model];
    const column = (field) => kept.map((point) => point[field]);
    return {
      ...{ name, group, model, k: column("k"), x: column("x"), y: column("y"), e: errors ? column("e") : null },
      ...{ low: null, high: null, nowhere: points.length - placed.length },
      nameless: points.filter((point) => point.x === null).map((point) => this.models[model].names[point.k]),
      gaps: kept.filter((point) => point.y === null).length,
    };
  }

  // A metric's value and error at one checkpoint; null where it was not measured.
  at(metric, model, k) {
    const entry = this.values[metric].find(([number]) => number === model);
    const i = entry ? (entry[1] ? entry[1].indexOf(k) : k) : -1;
    return i < 0 ? null : { y: entry[2][i], e: entry[3] ? entry[3][i] : null };
  }

  // The mean of a group's runs, each of which is straight between its checkpoints, where some run is.
  meanOf(group, lines) {
    const known = lines.map((line) => {
      const finite = line.x.flatMap((x, i) => (line.y[i] === null ? [] : [[x, line.y[i]]]));
      return [finite.map(([x]) => x), finite.map(([, y]) => y)];
    });
    const x = [...new Set(known.flatMap(([xs]) => xs))].sort((a, b) => a - b);
    const at = x.map((place) => known
      .filter(([xs]) => xs.length && xs[0] <= place && place <= xs.at(-1))
      .map(([xs, ys]) => interpolate(xs, ys, place)));
    const several = (pick) => at.map((values) => (values.length > 1 ? pick(...values) : null));
    const total = (field) => lines.reduce((sum, line) => sum + line[field], 0);
    return {
      ...{ name: this.groups[group][0], group, model: null, k: null, x, e: null },
      y: at.map((values) => values.reduce((sum, value) => sum + value, 0) / values.length),
      ...{ low: several(Math.min), high: several(Math.max), runs: at.map((values) => values.length) },
      ...{ nowhere: total("nowhere"), nameless: lines.flatMap((line) => line.nameless), gaps: total("gaps") },
    };
  }

  // The lines of a metric, of some groups.
  lines(metric, groups, { axis, eachRun }) {
    return groups.flatMap((group) => {
      const own = this.members[group].map((model) => this.lineOf(metric, model, axis)).filter(Boolean);
      return own.length > 1 && !eachRun ? [this.meanOf(group, own)] : own;
    });
  }

  // Why a verdict leaves out a checkpoint; "" where it does not, or where there is no verdict.
  leftOut(metric, model, k) {
    const verdict = this.verdictOf.get(`${metric} ${model}`);
    const at = this.models[model].at[k];
    if (!verdict || at === null) return "";
    if (at < verdict.from) return "left out of the verdict: the beginning, before a hundredth of the run";
    if (verdict.aside.includes(at)) return "left out of the verdict: one checkpoint far from its neighbours";
    if (verdict.diverged !== null && at >= verdict.diverged) return "left out of the verdict: the run has diverged";
    return "";
  }
}

// The value at x of the straight lines through rising xs; beyond their ends that of the end.
function interpolate(xs, ys, x) {
  const next = xs.findIndex((one) => one >= x);
  if (next <= 0) return next === 0 ? ys[0] : ys.at(-1);
  const share = (x - xs[next - 1]) / (xs[next] - xs[next - 1]);
  return ys[next - 1] + share * (ys[next] - ys[next - 1]);
}
