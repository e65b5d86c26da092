// Many runs beside each other: a table, curves with a band over seeds, tokens against F1.

const WANTED = ["eval/f1", "reward/f1", "reward/mean", "reward/format", "policy/entropy", "policy/ppl", "rollout/high_ppl_ratio",
  "advantage/neg_pos_ratio", "advantage/penalised_all_silver", "silver/score_mean", "rollout/searches", "rollout/action_tokens"];
const NAMES = { "eval/f1": "F1, held out", "reward/f1": "F1 in training", "reward/mean": "Reward", "reward/format": "Format", "policy/entropy": "Entropy (nats)",
  "policy/ppl": "Policy perplexity", "rollout/high_ppl_ratio": "Rollouts of PPL > 50", "advantage/neg_pos_ratio": "Negative-to-positive ratio",
  "advantage/penalised_all_silver": "Penalised queries, all silver", "silver/score_mean": "Mean silver score c", "rollout/searches": "Searches a rollout", "rollout/action_tokens": "Action tokens a rollout" };

/** `choose(i)` shows one of the runs below. */
function manyRuns(head, choose) {
  const cells = head.cells;
  const spread = (figure, digits = 3) => (figure ? [number(figure.mean, digits), figure.std === null ? null : h("span", { class: "soft small" }, ` ± ${number(figure.std, digits)}`)] : "–");
  const runs = (cell) => [cell.seeds.length, cell.unfinished ? h("span", { class: "soft small" }, ` (${cell.unfinished} not finished)`) : null];
  const rows = cells.map((cell) => [h("b", {}, cell.name), runs(cell), spread(cell.f1), spread(cell.em), spread(cell.format), spread(cell.searches, 2), spread(cell.tokens, 0),
    cell.wall_s ? duration(cell.wall_s.mean) : "–", cell.collapses.some((step) => step !== null) ? cell.collapses.map((step) => step ?? "none").join(", ") : "none"]);
  const all = [...new Set(cells.flatMap((cell) => Object.keys(cell.curves)))].sort();
  const own = h("div", { class: "charts" });
  const curve = (name) => ({
    title: NAMES[name] || name, high: null, share: name.includes("ratio") && !name.includes("neg_pos"), level: null, log: name.includes("ppl") ? 20 : null, stacked: false,
    marks: name === "reward/f1" ? cells.flatMap((cell) => cell.collapses.filter((step) => step !== null).map((step) => ({ x: step, text: `${cell.name}: collapse` }))) : [],
    lines: cells.map((cell) => ({ label: cell.name, dots: name.startsWith("eval/"), points: (cell.curves[name] || []).map(([x, y, low, high]) => (cell.seeds.length > 1 ? { x, y, low, high } : { x, y })) })),
  });
  return [
    h("section", { id: "runs", "aria-labelledby": "runs-title" },
      h("div", { class: "stack" }, h("h1", { id: "runs-title" }, `${plural(head.runs.length, "run")}, ${plural(cells.length, "method")}`), h("p", { class: "soft" }, "Mean ± deviation over seeds, of the newest evaluation of each run; of one that is not finished it may ask fewer questions")),
      h("div", { class: "card pad" }, table("Methods", [["", false], ["runs", true], ["F1", true], ["EM", true], ["format", true], ["searches", true], ["tokens sampled", true], ["time", true], ["collapse", false]], rows)),
      h("div", { class: "two" }, pareto(cells), h("div", { class: "card pad" }, everyRun(head, choose)))),
    section("compared", "Curves by method", "mean over seeds; the band is one deviation",
      h("div", { class: "row" }, field("Any metric", select([["", "choose …"], ...all.map((name) => [name, name])], (name) => own.replaceChildren(...(name ? [chartCard(curve(name))] : []))))),
      own, h("div", { class: "charts" }, WANTED.filter((name) => all.includes(name)).map((name) => chartCard(curve(name))))),
  ];
}

function everyRun(head, choose) {
  const rows = head.runs.map((run, i) => {
    const f1 = run.evaluation.rows.find((row) => row.label === "F1");
    const now = f1 && (f1.after || f1.before);
    return [h("button", { class: "link", type: "button", click: () => choose(i) }, run.name), run.seed, `${run.steps} of ${run.planned}`,
      now ? [number(now.mean), now.low < now.high ? h("span", { class: "soft small" }, ` (${number(now.low)} to ${number(now.high)})`) : null] : "–", run.alarms.length, run.collapse === null ? "none" : `step ${run.collapse}`];
  });
  return table("Runs: choose one to see it below", [["", false], ["seed", true], ["steps", true], ["F1", true], ["alarms", true], ["collapse", true]], rows);
}

/** Tokens against F1, a mark a method; who is on the front has no other with more F1 for no more tokens. */
function pareto(cells) {
  const known = cells.map((cell, i) => ({ cell, i })).filter(({ cell }) => cell.tokens && cell.f1);
  if (!known.length) return null;
  const width = 560, height = 300, left = 48, bottom = 262, right = 540, top = 16;
  const span = (figures) => {  // around the marks and their bars, with some air
    const low = Math.min(...figures.map((figure) => figure.mean - (figure.std || 0))), high = Math.max(...figures.map((figure) => figure.mean + (figure.std || 0)));
    const air = 0.15 * (high - low) || 0.1 * high || 1;
    return [Math.max(0, low - air), high + air];
  };
  const [x0, x1] = span(known.map(({ cell }) => cell.tokens)), [y0, y1] = span(known.map(({ cell }) => cell.f1));
  const inside = (low, high) => niceTicks(low, high).filter((tick) => low <= tick && tick <= high);
  const xs = inside(x0, x1), ys = inside(y0, y1);
  const x = (value) => left + ((value - x0) / (x1 - x0)) * (right - left), y = (value) => bottom - ((value - y0) / (y1 - y0)) * (bottom - top);
  const front = known.filter(({ cell }) => !known.some(({ cell: other }) => other !== cell && other.f1.mean >= cell.f1.mean && other.tokens.mean <= cell.tokens.mean && (other.f1.mean > cell.f1.mean || other.tokens.mean < cell.tokens.mean)))
    .sort((a, b) => a.cell.tokens.mean - b.cell.tokens.mean);
  const svg = s("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Tokens against F1. ${known.map(({ cell }) => `${cell.name}: ${number(cell.tokens.mean, 0)} tokens, F1 ${number(cell.f1.mean)}`).join(". ")}` });
  for (const tick of ys) svg.append(s("line", { class: "grid", x1: left, x2: right, y1: y(tick), y2: y(tick) }), s("text", { x: left - 7, y: y(tick) + 4, "text-anchor": "end" }, short(tick)));
  for (const tick of xs) svg.append(s("text", { x: x(tick), y: bottom + 18, "text-anchor": "middle" }, short(tick)));
  svg.append(s("text", { x: right, y: height - 4, "text-anchor": "end" }, "tokens sampled in training"), s("text", { x: 4, y: 11 }, "F1"));
  svg.append(s("path", { class: "line", stroke: "var(--faint)", "stroke-dasharray": "2 4", d: front.map(({ cell }, i) => `${i ? "L" : "M"}${x(cell.tokens.mean)} ${y(cell.f1.mean)}`).join("") }));
  for (const { cell, i } of known) {
    const cx = x(cell.tokens.mean), cy = y(cell.f1.mean);
    if (cell.f1.std !== null) svg.append(s("line", { stroke: color(i), "stroke-width": 2, x1: cx, x2: cx, y1: y(cell.f1.mean - cell.f1.std), y2: y(cell.f1.mean + cell.f1.std) }));
    if (cell.tokens.std !== null) svg.append(s("line", { stroke: color(i), "stroke-width": 2, x1: x(cell.tokens.mean - cell.tokens.std), x2: x(cell.tokens.mean + cell.tokens.std), y1: cy, y2: cy }));
    svg.append(s("circle", { cx, cy, r: 6, fill: color(i) }), s("text", { x: cx > right - 90 ? cx - 10 : cx + 10, y: cy - 8, "text-anchor": cx > right - 90 ? "end" : "start" }, cell.name));
  }
  return styled(h("figure", { class: "card chart" }, h("h3", {}, "Tokens against F1"), svg, h("p", { class: "soft small" }, "Dotted: the front, where no other method has more F1 for no more tokens. Bars: one deviation over seeds.")), { margin: "0" });
}
