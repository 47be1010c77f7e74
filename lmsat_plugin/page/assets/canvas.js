// Drawing on a canvas: cells of a heat map, and lines through the entries of an array.

const MARGIN = { left: 46, right: 10, top: 6, bottom: 34 };

// The colour of a share from 0 to 1, as "r,g,b", between the stops of the page's map.
class ColourMap {
  constructor(stops) {
    this.stops = stops;
    const parts = stops.map((stop) => [1, 3, 5].map((place) => parseInt(stop.slice(place, place + 2), 16)));
    this.table = Array.from({ length: 256 }, (_, i) => {
      const at = (i / 255) * (parts.length - 1);
      const [a, b] = [parts[Math.floor(at)], parts[Math.ceil(at)]];
      return `rgb(${a.map((from, c) => Math.round(from + (at % 1) * (b[c] - from))).join(",")})`;
    });
  }

  at(share) {
    return this.table[Math.max(0, Math.min(255, Math.round(255 * share)))];
  }

  gradient() {
    return `linear-gradient(to right, ${this.stops.join(", ")})`;
  }
}

// A scale of values: as the reader has chosen; else logarithmic for spectra, and where all are above 0 and lie far apart,
// unless they are shares.
function valueScale(columns, chosen = "") {
  const { low, high, least } = rangeOf(columns);
  const falls = (column) => column.every((value, i) => value !== null && (!i || value <= column[i - 1]));
  const usual = (high > 30 * low && high > 1) || (high > 5 * low && columns.every(falls)) ? "log" : "linear";
  const kind = low > 0 ? chosen || usual : "linear";
  const scale = scaleOf(kind, least);
  const [a, b] = [scale.fwd(low), scale.fwd(high)];
  return { kind, scale, low, high, share: (value) => (b > a ? (scale.fwd(value) - a) / (b - a) : 0.5) };
}

// A canvas as large as its place, and what is needed to draw on it: its context, and the box of the plot.
function preparedCanvas(canvas) {
  const [width, height] = [canvas.clientWidth || 320, canvas.clientHeight || 180];
  const ratio = uPlot.pxRatio;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const ctx = canvas.getContext("2d");
  ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
  ctx.clearRect(0, 0, width, height);
  ctx.font = "11px system-ui, sans-serif";
  const box = {
    ...{ left: MARGIN.left, top: MARGIN.top, width: width - MARGIN.left - MARGIN.right },
    height: height - MARGIN.top - MARGIN.bottom,
  };
  return { ctx, box };
}

// Ticks as [place within the box, text], along the bottom or the left, with the axis' name.
function drawAxis({ ctx, box }, side, ticks, title) {
  ctx.fillStyle = ctx.strokeStyle = themed("--quiet");
  ctx.lineWidth = 0.5;
  ctx.strokeRect(box.left, box.top, box.width, box.height);
  const isBottom = side === "bottom";
  ctx.textAlign = isBottom ? "center" : "right";
  ctx.textBaseline = isBottom ? "top" : "middle";
  for (const [at, text] of ticks) {
    if (isBottom) ctx.fillText(text, box.left + at, box.top + box.height + 4);
    else ctx.fillText(text, box.left - 4, box.top + box.height - at);
  }
  ctx.save();
  if (isBottom) {
    ctx.textAlign = "right";
    ctx.fillText(title, box.left + box.width, box.top + box.height + 19, box.width);
  } else {
    ctx.translate(8, box.top + box.height / 2);
    ctx.rotate(-Math.PI / 2);
    ctx.textAlign = "center";
    ctx.fillText(title, 0, 0, box.height);
  }
  ctx.restore();
}

// Ticks at round values of a scale from low to high.
function scaleTicks(kind, scale, low, high, pixels, apart) {
  const [a, b] = [scale.fwd(low), scale.fwd(high)];
  if (!(b > a)) return [[pixels / 2, shortNumber(low)]];
  return ticksOf(kind, scale, [low, high], pixels, apart)
    .map((x) => [((scale.fwd(x) - a) / (b - a)) * pixels, shortNumber(x)]);
}

// Ticks at some of the rows or columns of equal size, which have names.
function namedTicks(names, pixels, apart) {
  const size = pixels / names.length;
  const every = Math.max(1, Math.ceil(apart / size));
  return names.flatMap((name, i) => (i % every ? [] : [[(i + 0.5) * size, name]]));
}

// The ends of cells about places on an axis: halfway to the neighbours.
function cellEnds(places) {
  const inner = places.slice(1).map((place, i) => (places[i] + place) / 2);
  const [first, last] = [places[0], places.at(-1)];
  const room = places.length > 1 ? [inner[0] - first, last - inner.at(-1)] : [0.5, 0.5];
  return [first - room[0], ...inner, last + room[1]];
}
