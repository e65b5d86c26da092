// What a run is and what came of it: tiles, the table before and after, its parts, faults, checkpoints, configuration.

function runSummary(run) {
  const state = run.finished ? ["finished", "pill good"] : ["not finished", "pill bad"];
  const facts = [`seed ${run.seed}`, `${run.steps} of ${run.planned} steps`, `model ${run.model}`, `engine ${run.engine}`, `${run.rollouts_a_step} rollouts a step`];
  return h("section", { id: "summary", "aria-labelledby": "summary-title" },
    h("div", { class: "stack" },
      h("h1", { id: "summary-title" }, run.name),
      h("div", { class: "row" }, h("span", { class: "pill accent" }, run.method), h("span", { class: state[1] }, state[0]),
        facts.map((fact) => h("span", { class: "pill" }, fact)))),
    h("div", { class: "tiles" }, tiles(run)),
    run.evaluation.rows.length ? h("div", { class: "card pad stack" }, beforeAfter(run.evaluation)) : null,
    parts(run.evaluation));
}

function tiles(run) {
  const row = (label) => run.evaluation.rows.find((one) => one.label === label);
  const figure = (label, heading) => {
    const of = row(label);
    if (!of) return null;
    const now = of.after || of.before;
    const alike = run.evaluation.questions_before === run.evaluation.questions;
    const change = of.change?.mean ?? (of.after && of.before && alike ? of.after.mean - of.before.mean : null);
    const neutral = label.startsWith("searches");
    return tile(heading, number(now.mean),
      change === null ? (of.after ? null : "before training") : h("span", { class: neutral ? "" : change >= 0 ? "good-ink" : "bad-ink" }, `${signed(change, 3)} since before`));
  };
  const alarms = run.alarms.length
    ? tile("Sentinel", plural(run.alarms.length, "alarm"), h("span", { class: "warn-ink" }, `⚠ first at step ${Math.min(...run.alarms.map((alarm) => alarm.since))}`))
    : tile("Sentinel", run.sentinel === "off" ? "off" : "no alarm", run.collapse === null ? "no collapse" : null);
  return [
    figure("F1", "F1, held out"), figure("exact match", "Exact match"), figure("format", "Format"), figure("searches a question", "Searches"),
    tile("Tokens sampled", number(run.tokens, 0), plural(run.steps, "step")),
    tile("Time", duration(run.wall_s ?? run.step_s), run.wall_s === null ? "in its steps so far" : `${duration(run.step_s / Math.max(run.steps, 1))} a step`),
    run.collapse === null ? alarms : tile("Collapse", `step ${run.collapse}`, h("span", { class: "warn-ink" }, "⚠ F1 in training fell for good")),
  ];
}

const tile = (name, value, note) => h("div", { class: "card tile" }, h("div", { class: "name" }, name), h("div", { class: "value" }, value), h("div", { class: "note" }, note || " "));

function beforeAfter(evaluation) {
  const known = (estimate) => estimate && estimate.low < estimate.high;
  const cell = (estimate, digits = 3) => (estimate ? h("span", {}, number(estimate.mean, digits), known(estimate)
    ? h("span", { class: "soft small" }, ` (${number(estimate.low, digits)} to ${number(estimate.high, digits)})`) : null) : "–");
  const rows = evaluation.rows.map((row) => {
    const digits = row.label.includes("tokens") ? 1 : 3;
    const change = row.change || (row.before && row.after ? { mean: row.after.mean - row.before.mean, low: 0, high: 0 } : null);
    const neutral = row.label.includes("a question");
    const sure = row.change && (row.change.low > 0 || row.change.high < 0);
    return [row.label, cell(row.before, digits), cell(row.after, digits),
      change ? h("span", { class: neutral ? "" : change.mean >= 0 ? "good-ink" : "bad-ink" }, signed(change.mean, digits),
        known(change) ? h("span", { class: "soft small" }, ` (${signed(change.low, digits)} to ${signed(change.high, digits)})${sure ? "" : " unsure"}`) : null) : "–",
      whisker(row)];
  });
  const asked = `${plural(evaluation.questions_before, "question")} before, ${evaluation.questions.toLocaleString("en")} after step ${evaluation.step ?? 0}; in brackets: bootstrap 95 % over questions, of the change paired`;
  return [table("Held-out questions, greedy", [["", false], ["before", true], ["after", true], ["change", true], ["", false]], rows), h("p", { class: "soft small" }, asked)];
}

/** Before and after with their intervals on one scale. */
function whisker(row) {
  const both = [row.before, row.after].filter(Boolean);
  const top = Math.max(1, ...both.map((estimate) => estimate.high)) * 1.02;
  const x = (value) => 5 + (value / top) * 240;
  const one = (estimate, y, now) => (estimate ? [
    s("line", { class: now ? "now" : "", x1: x(estimate.low), x2: x(estimate.high), y1: y, y2: y }),
    s("circle", { class: now ? "now" : "", cx: x(estimate.mean), cy: y, r: 3.6 })] : []);
  return s("svg", { class: "whisker", viewBox: "0 0 250 30", role: "img", "aria-label": `${row.label}: hollow before, full after` }, one(row.before, 9, false), one(row.after, 21, true));
}

function parts(evaluation) {
  const of = (title, shares) => (shares.length > 1 ? h("div", { class: "card pad" }, table(title, [["", false], ["questions", true], ["before", true], ["F1", true]],
    shares.map((share) => [share.part, share.questions, number(share.before), number(share.after)]))) : null);
  const cards = [of("F1 by hops", evaluation.by_hops), of("F1 by type", evaluation.by_type)].filter(Boolean);
  return cards.length ? h("div", { class: "two" }, cards) : null;
}

function runFaults(run) {
  const rows = run.faults.map((fault) => [fault.kind, fault.count, fault.cost, fault.steps.length ? steps(fault.steps) : "–", fault.extra_s === null ? "–" : duration(fault.extra_s)]);
  const parts = Object.entries(run.time).filter(([, spent]) => spent > 0);
  const whole = parts.reduce((sum, [, spent]) => sum + spent, 0) || 1;
  const bar = h("div", { class: "stackbar", role: "img", "aria-label": `Where the steps' time went: ${parts.map(([name, spent]) => `${name} ${percent(spent / whole)}`).join(", ")}` },
    parts.map(([, spent], i) => styled(h("span", {}), { width: `${(100 * spent) / whole}%`, background: color(i) })));
  return section("faults", "Faults and time", null,
    h("div", { class: "two" },
      h("div", { class: "card pad stack" },
        rows.length ? table("What went wrong, and what it cost", [["", false], ["how often", true], ["what", false], ["in steps", false], ["extra time", true]], rows)
          : [h("h3", {}, "What went wrong"), h("p", { class: "soft" }, "Nothing: no search failed for good, no update was skipped, no engine died, nothing was restarted.")],
        rows.length ? h("p", { class: "soft small" }, "Extra time: by how much the steps that met it were longer than the median of the others, evaluations aside.") : null),
      h("div", { class: "card pad stack" }, h("h3", {}, "Where the time went"), bar,
        h("div", { class: "legend" }, parts.map(([name, spent], i) => h("span", { class: "row small soft" }, styled(h("span", { "aria-hidden": "true" }), { width: "10px", height: "10px", "border-radius": "3px", background: color(i) }), `${name} ${percent(spent / whole)}`, " "))),
        run.outside_s === null ? null : h("p", { class: "soft small" }, `${duration(run.outside_s)} lie outside the steps: start-up, the first evaluation, the end, and what restarts lost.`)),
    ),
    run.alarms.length ? h("div", { class: "card pad" }, table("Alarms of the sentinel", [["metric", false], ["from step", true], ["to step", true], ["", false]], run.alarms.map((alarm) => [alarm.metric, alarm.since, alarm.until, alarm.text]))) : null,
    checkpoints(run));
}

const steps = (list) => (list.length > 8 ? `${list.slice(0, 8).join(", ")} … (${list.length})` : list.join(", "));

function checkpoints(run) {
  if (!run.checkpoints.length) {
    const said = run.checkpoints_at === "elsewhere" ? "They are kept at checkpoint.uri, not in the run's folder." : run.checkpoints_at ? "None is in the run's folder." : "None was written: checkpoint.every is 0.";
    return h("div", { class: "card pad stack" }, h("h3", {}, "Checkpoints"), h("p", { class: "soft" }, said));
  }
  return h("div", { class: "card pad" }, table("Checkpoints that are there", [["after step", false], ["size", true], ["files", true], ["written", true]],
    run.checkpoints.map((one) => [one.version, bytes(one.bytes), one.files, `${new Date(1000 * one.written_s).toISOString().slice(0, 16).replace("T", " ")} UTC`])));
}

function runSettings(run) {
  const { base, differences, all } = run.settings;
  const search = h("input", { type: "search", placeholder: "e.g. learner.lr", input: () => fill() });
  const rows = h("div", {});
  const fill = () => rows.replaceChildren(table(`All ${Object.keys(all).length} settings`, [["key", false], ["value", false]],
    Object.entries(all).filter(([key, value]) => `${key} ${value}`.toLowerCase().includes(search.value.toLowerCase())), { class: "settings" }));
  fill();
  return section("configuration", "Configuration", `beside ${base}`,
    h("div", { class: "card pad" }, differences.length
      ? table(`${plural(differences.length, "setting")} differ from ${base}`, [["key", false], ["this run", false], [base, false], ["decides", false]],
        differences.map((one) => [h("code", {}, one.key), h("code", {}, one.value), h("code", { class: "soft" }, one.base), h("span", { class: "soft small" }, one.decides.split(":")[0])]))
      : h("p", { class: "soft" }, `Nothing differs from ${base}.`)),
    h("details", { class: "plain" }, h("summary", {}, `Parameters of ${run.method}`),
      h("div", { class: "card pad" }, table(`Parameters of ${run.method}`, [["", false], ["", false]], Object.entries(run.params), { class: "settings" }))),
    h("details", { class: "plain" }, h("summary", {}, "Every setting"), h("div", { class: "card pad stack" }, field("Filter", search, true), rows)));
}
