// Lines, bands and stacks over steps as inline SVG, with a crosshair that all charts of a page share.

const MARGIN = { top: 12, right: 14, bottom: 22, left: 44 };
const HEIGHT = 190;
const DASHES = ["", "7 4", "2 3", "9 3 2 3"];  // lines differ without colour too
const crosshairs = new Set();  // of every chart that is there

const color = (i) => `var(--c${i % 8})`;
const dash = (i) => DASHES[Math.floor(i / 8) % DASHES.length] || (i % 8 ? DASHES[(i % 8) % DASHES.length] : "");

/**
 * A chart in a card. `spec`: title, lines [{label, points: [{x, y, low?, high?}], raw?: points, dots?}], high, share,
 * level, log, stacked, marks [{x, text}], spans [{from, to, text}].
 */
function chartCard(spec) {
  const hidden = new Set();
  const holder = h("div", {});
  const tip = h("div", { class: "tip", hidden: true });
  const legend = h("div", { class: "legend" }, spec.lines.map((line, i) => h("button", {
    type: "button", "aria-pressed": "true", title: "Show or hide",
    click: (event) => {
      hidden.has(i) ? hidden.delete(i) : hidden.add(i);
      event.currentTarget.setAttribute("aria-pressed", String(!hidden.has(i)));
      draw();
    },
  }, swatch(spec, i), line.label)));
  const card = h("figure", { class: "card chart" }, h("h3", {}, spec.title), holder, legend, tip);
  styled(card, { margin: "0" });
  let width = 0, cross = null;

  function draw() {
    if (!width) return;
    const shown = spec.lines.map((line, i) => ({ ...line, i })).filter((line) => !hidden.has(line.i));
    const drawn = drawing(spec, shown, width);
    holder.replaceChildren(drawn.svg);
    crosshairs.delete(cross);
    cross = follow(drawn, spec, shown, card, tip);
    crosshairs.add(cross);
  }
  new ResizeObserver(([entry]) => {
    const now = Math.round(entry.contentRect.width);
    if (now && now !== width) { width = now; draw(); }
  }).observe(holder);
  return card;
}

function swatch(spec, i) {
  if (spec.stacked) return s("svg", { viewBox: "0 0 20 10", "aria-hidden": "true" }, s("rect", { width: 14, height: 10, x: 3, rx: 2, fill: shade(spec, i) }));
  return s("svg", { viewBox: "0 0 20 10", "aria-hidden": "true" },
    s("line", { x1: 0, x2: 20, y1: 5, y2: 5, stroke: color(i), "stroke-width": 2.5, "stroke-dasharray": dash(i) }));
}

const shade = (spec, i) => (spec.lines.length === 4 ? `var(--s${i})` : color(i));

function stackedLines(lines) {
  const below = new Map();
  return lines.map((line) => ({ ...line, points: line.points.map(({ x, y }) => {
    const low = below.get(x) || 0;
    below.set(x, low + y);
    return { x, y: low + y, low, high: low + y, own: y };
  }) }));
}

function drawing(spec, shown, width) {
  const lines = spec.stacked ? stackedLines(shown) : shown;
  const points = lines.flatMap((line) => [...line.points, ...(line.raw || [])]);
  const xs = [...new Set(lines.flatMap((line) => line.points.map((point) => point.x)))].sort((a, b) => a - b);
  const most = Math.max(...points.map((point) => Math.max(point.y, point.high ?? point.y)), spec.level ?? -Infinity, 0);
  const least = Math.min(...points.map((point) => Math.min(point.y, point.low ?? point.y)), 0);
  const log = spec.log && points.some((point) => point.y > spec.log) && points.every((point) => point.y > 0);
  const low = log ? 10 ** Math.floor(Math.log10(Math.min(...points.map((point) => point.y)))) : least;
  const ticks = log ? decades(low, most) : niceTicks(low, spec.high ?? (most || 1));
  const high = log ? Math.max(most, ticks.at(-1)) : spec.high ?? Math.max(ticks.at(-1), most);
  const first = xs.length ? xs[0] : 0, last = xs.length ? xs.at(-1) : 1;
  const right = width - MARGIN.right, bottom = HEIGHT - MARGIN.bottom;
  const x = (value) => (last === first ? (MARGIN.left + right) / 2 : MARGIN.left + ((value - first) / (last - first)) * (right - MARGIN.left));
  const on = log ? (value) => Math.log(value / low) / Math.log(high / low) : (value) => (value - low) / (high - low || 1);
  const y = (value) => bottom - on(value) * (bottom - MARGIN.top);
  const fine = spec.share && ticks.length > 1 && ticks[1] - ticks[0] < 0.01 ? 1 : 0;
  const label = (value) => (spec.share ? percent(value, fine) : short(value));

  const svg = s("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, height: HEIGHT, role: "img", tabindex: "0", "aria-label": told(spec, lines, label) });
  for (const span of spec.spans || []) {
    const from = x(Math.max(span.from - 0.5, first)), to = x(Math.min(span.to + 0.5, last));
    svg.append(s("rect", { class: "alarm", x: from, y: MARGIN.top, width: Math.max(to - from, 2), height: bottom - MARGIN.top }, s("title", {}, span.text)));
    svg.append(s("line", { class: "alarm-top", x1: from, x2: Math.max(to, from + 2), y1: MARGIN.top, y2: MARGIN.top }));
    svg.append(s("text", { class: "warn", x: from + 3, y: MARGIN.top + 13 }, "⚠ alarm"));
  }
  for (const tick of ticks) {
    svg.append(s("line", { class: "grid", x1: MARGIN.left, x2: right, y1: y(tick), y2: y(tick) }));
    svg.append(s("text", { x: MARGIN.left - 7, y: y(tick) + 4, "text-anchor": "end" }, label(tick)));
  }
  for (const tick of wholeTicks(first, last, Math.max(2, Math.floor(width / 70)))) {
    svg.append(s("text", { x: x(tick), y: HEIGHT - 5, "text-anchor": "middle" }, spec.x ? spec.x(tick) : String(tick)));
  }
  if (spec.level !== null && spec.level !== undefined) svg.append(s("line", { class: "level", x1: MARGIN.left, x2: right, y1: y(spec.level), y2: y(spec.level) }));
  const path = (of) => of.map((point, i) => `${i ? "L" : "M"}${x(point.x).toFixed(1)} ${y(point.y).toFixed(1)}`).join("");
  for (const line of lines) {
    const paint = spec.stacked ? shade(spec, line.i) : color(line.i);
    if (line.points.length && line.points[0].low !== undefined) {
      const under = [...line.points].reverse().map((point) => ({ x: point.x, y: point.low }));
      const over = line.points.map((point) => ({ x: point.x, y: point.high }));
      svg.append(s("path", { class: spec.stacked ? "" : "band", fill: paint, d: `${path([...over, ...under])}Z` }));
    }
    if (spec.stacked) continue;
    if (line.raw) svg.append(s("path", { class: "raw", stroke: paint, d: path(line.raw) }));
    svg.append(s("path", { class: "line", stroke: paint, "stroke-dasharray": dash(line.i), d: path(line.points) }));
    if (line.dots || line.points.length === 1) {
      for (const point of line.points) svg.append(s("circle", { cx: x(point.x), cy: y(point.y), r: 3.4, fill: paint }));
    }
  }
  for (const mark of spec.marks || []) {
    svg.append(s("line", { class: "collapse", x1: x(mark.x), x2: x(mark.x), y1: MARGIN.top, y2: bottom }));
    const late = x(mark.x) > width * 0.6;
    svg.append(s("text", { class: "warn", x: x(mark.x) + (late ? -5 : 5), y: MARGIN.top + 26, "text-anchor": late ? "end" : "start" }, mark.text));
  }
  const line = s("line", { class: "cross", y1: MARGIN.top, y2: bottom, visibility: "hidden" });
  svg.append(line);
  return { svg, xs, x, y, lines, label, line, width };
}

/** What moves the crosshair of a drawing; it returns what shows it at a step that another chart has chosen. */
function follow(drawn, spec, shown, card, tip) {
  const { svg, xs, x, line, lines, label, width } = drawn;
  const nearest = (value) => xs.reduce((best, step) => (Math.abs(step - value) < Math.abs(best - value) ? step : best), xs[0]);
  const rows = (step) => lines.map((of) => [of.label, of.points.find((point) => point.x === step)]).filter(([, point]) => point);
  let at = null;

  function show(step, whole) {
    at = step;
    if (step === null || !xs.length) {
      line.setAttribute("visibility", "hidden");
      tip.hidden = true;
      return;
    }
    const near = nearest(step);
    line.setAttribute("visibility", "visible");
    line.setAttribute("x1", x(near));
    line.setAttribute("x2", x(near));
    tip.hidden = !whole;
    if (!whole) return;
    const span = (spec.spans || []).find((one) => one.from <= near && near <= one.to);
    tip.replaceChildren(h("b", {}, `step ${near}`), ...rows(near).flatMap(([name, point]) => [
      h("span", {}, name),
      h("span", {}, label(point.own ?? point.y) + (point.high > point.low && point.own === undefined ? ` ± ${short((point.high - point.low) / 2)}` : "")),
    ]), ...(span ? [h("b", { class: "warn-ink" }, span.text)] : []));
    const left = svg.offsetLeft ?? 0;
    const place = x(near) > width / 2 ? x(near) - tip.offsetWidth - 4 : x(near) + 26;
    styled(tip, { left: `${Math.max(6, Math.min(left + place, card.clientWidth - tip.offsetWidth - 6))}px`, top: "44px" });
  }
  const all = (step) => crosshairs.forEach((other) => other(step, other === show));
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const share = (event.clientX - box.left - MARGIN.left) / (box.width - MARGIN.left - MARGIN.right);
    all(nearest(xs[0] + share * (xs.at(-1) - xs[0])));
  });
  svg.addEventListener("pointerleave", () => all(null));
  svg.addEventListener("blur", () => all(null));
  svg.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (event.key === "Escape") all(null);
    if (move === undefined || !xs.length) return;
    event.preventDefault();
    const place = at === null ? (move > 0 ? -1 : xs.length) : xs.indexOf(nearest(at));
    const step = xs[Math.max(0, Math.min(xs.length - 1, place + move))];
    all(step);
    say(`step ${step}: ${rows(step).map(([name, point]) => `${name} ${label(point.own ?? point.y)}`).join(", ")}`);
  });
  return show;
}

/** The chart in words, for who does not see it. */
function told(spec, lines, label) {
  const said = lines.filter((line) => line.points.length).map((line) => {
    const first = line.points[0], last = line.points.at(-1);
    return `${line.label} from ${label(first.own ?? first.y)} at ${first.x} to ${label(last.own ?? last.y)} at ${last.x}`;
  });
  const marks = [...(spec.marks || []).map((mark) => mark.text), ...(spec.spans || []).map((span) => span.text)];
  return `${spec.title}. ${[...said, ...marks].join(". ")}. Arrow keys read it step by step.`;
}

function niceTicks(low, high, wanted = 4) {
  const rough = (high - low) / wanted || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((one) => one >= rough * 0.999);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high * (1 + 1e-9) + 1e-12; i += 1) ticks.push(Number((i * step).toPrecision(12)));
  if (ticks.at(-1) < high * 0.98) ticks.push(Number((ticks.at(-1) + step).toPrecision(12)));
  return ticks.filter((tick) => tick <= high * 1.001 || tick === ticks.at(-1));
}

function decades(low, high) {
  const ticks = [low];
  while (ticks.at(-1) < high) ticks.push(ticks.at(-1) * 10);
  return ticks;
}

function wholeTicks(first, last, wanted) {
  const step = Math.max(1, niceTicks(0, Math.max(last - first, 1), wanted)[1] || 1);
  const whole = Math.max(1, Math.round(step));
  const ticks = [];
  for (let tick = Math.ceil(first / whole) * whole; tick <= last; tick += whole) ticks.push(tick);
  return ticks;
}

function short(value) {
  const size = Math.abs(value);
  if (size >= 1e6) return `${+(value / 1e6).toPrecision(3)}M`;
  if (size >= 1e4) return `${+(value / 1e3).toPrecision(3)}k`;
  return minus(String(+value.toPrecision(3)));
}

/** A centred mean over a tenth of the points (3 to 21), as the project's figures have it. */
function runningMean(points) {
  const half = Math.floor(Math.max(3, Math.min(21, Math.floor(points.length * 0.1))) / 2);
  return points.map((point, i) => {
    const near = points.slice(Math.max(0, i - half), i + half + 1);
    return { x: point.x, y: near.reduce((sum, other) => sum + other.y, 0) / near.length };
  });
}
