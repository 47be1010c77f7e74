// Scales of axes, their ticks, and numbers in words.

const SCALES = { linear: "linear", log: "logarithmic", asinh: "logarithmic with 0" };

// A scale's function and its inverse. Arcsinh is straight up to the least number above 0, and logarithmic from there on.
function scaleOf(kind, least) {
  if (kind === "log") return { fwd: Math.log10, bwd: (u) => 10 ** u };
  if (kind === "asinh") return { fwd: (x) => Math.asinh(x / least), bwd: (u) => least * Math.sinh(u) };
  return { fwd: (x) => x, bwd: (u) => u };
}

// Round numbers between two ends, far enough apart on an axis of so many pixels.
function ticksOf(kind, scale, [low, high], pixels, apart) {
  const place = (x) => (pixels * (scale.fwd(x) - scale.fwd(low))) / (scale.fwd(high) - scale.fwd(low));
  const straight = straightTicks(low, high, Math.max(2, Math.floor(pixels / apart)));
  if (kind === "linear") return straight;
  const powers = [];
  const first = Math.floor(Math.log10(Math.max(low, high / 1e12, 1e-300)));
  for (let power = first; power <= Math.log10(high); power += 1) powers.push(power);
  const wanted = [...(low <= 0 ? [0] : []), ...[1, 3, 2, 5].flatMap((m) => powers.map((power) => m * 10 ** power))];
  const chosen = [];
  for (const x of wanted.map((x) => Number(x.toPrecision(1)))) {
    if (x >= low && x <= high && chosen.every((other) => Math.abs(place(other) - place(x)) >= apart)) chosen.push(x);
  }
  return chosen.length > 2 ? chosen.sort((a, b) => a - b) : straight;
}

function straightTicks(low, high, most) {
  const rough = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((one) => one >= rough) ?? rough;
  const ticks = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high * (1 + 1e-12); n += 1) {
    ticks.push(Number((n * step).toPrecision(12)));
  }
  return ticks;
}

const UNITS = [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]];

// A number in few letters, such as 143k or 2.1e21.
function shortNumber(x) {
  const size = Math.abs(x);
  if (size >= 1e15 || (size > 0 && size < 1e-4)) return Number(x.toPrecision(4)).toExponential().replace("e+", "e");
  const [unit, letter] = UNITS.find(([one]) => size >= one) ?? [1, ""];
  return `${Number((x / unit).toPrecision(4))}${letter}`;
}

// A value as the tables show it: five digits, and two of its standard error.
function valueInWords(value, error) {
  if (value === null || value === undefined) return "not finite";
  const shown = Math.abs(value) >= 1e5 || (value !== 0 && Math.abs(value) < 1e-4)
    ? value.toExponential(4) : String(Number(value.toPrecision(5)));
  return error ? `${shown} ± ${Number(error.toPrecision(2))}` : shown;
}

function placeInWords(axis, x) {
  const whole = x.toLocaleString("en", { maximumFractionDigits: 0 });
  if (axis === "step") return `step ${whole}`;
  if (axis === "share") return `${Number((100 * x).toPrecision(4))} % of training`;
  if (axis === "flops") return `${Number(x.toPrecision(4)).toExponential().replace("e+", "e")} FLOP`;
  return axis === "order" ? `checkpoint ${whole}` : `${shortNumber(x)} ${axis}`;
}
