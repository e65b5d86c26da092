// What every method makes of the same rollouts: whom it blames, how far they agree, what they dispute, and c against gold.

function methodComparison(world, browser) {
  if (!world) return null;
  const all = `${plural(world.searches, "search", "searches")} in ${plural(world.groups.length, "group")}; a search is a turn that is not the last one`;
  return section("methods", "Methods on the same rollouts", all,
    h("div", { class: "two" },
      h("div", { class: "column" }, card(blame(world)), card(kinds(world, browser)), goldRates(world), judgeRates(world)),
      h("div", { class: "column" }, card(agreement(world)), card(disputed(world, browser)), calibration(world))));
}

const card = (...children) => h("div", { class: "card pad stack" }, ...children);

function blame(world) {
  const rows = world.methods.map((name, m) => {
    const of = world.figures[name];
    const share = of.searches ? of.blamed / of.searches : null;
    return [m ? name : h("b", {}, `${name} (trained)`),
      h("span", {}, h("span", { class: "meter", "aria-hidden": "true" }, styled(h("i", {}), { width: percent(share || 0, 1).replace(" ", "") })), percent(share)),
      percent(of.blamed_all_silver), percent(of.blamed_any_silver), of.neg_pos === null ? "–" : of.neg_pos.toFixed(2)];
  });
  return [table("Whom a method blames", [["method", false], ["searches blamed", false], ["of them all silver", true], ["any silver", true], ["N / P", true]], rows),
    h("p", { class: "soft small" }, "All silver: every document was found by a correct rollout too, the paper's likely correct search. N / P: negative over positive credit, by tokens.")];
}

function agreement(world) {
  const names = world.methods;
  const rows = names.map((one) => h("tr", {}, h("th", { scope: "row" }, one), names.map((other) => {
    const share = world.figures[one].agrees[other];
    const cell = h("td", {}, share === null || share === undefined ? "–" : Math.round(100 * share));
    if (one !== other && typeof share === "number") styled(cell, { background: `color-mix(in srgb, var(--accent) ${Math.round(34 * Math.max(0, (share - 0.4) / 0.6))}%, transparent)` });
    return cell;
  })));
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Agreement of methods" }, h("table", { class: "heat" },
    h("caption", {}, "Searches of equal sign, %"),
    h("thead", {}, h("tr", {}, h("td", {}), names.map((name) => h("th", { scope: "col" }, name)))), h("tbody", {}, rows)));
}

function kinds(world, browser) {
  const rows = world.kinds.filter((kind) => kind.searches).map((kind) => [
    h("button", { class: "link", type: "button", click: () => browser.filter({ kind: kind.name }) }, kind.text), kind.searches, kind.opposed]);
  return [table("What a search found, beside the outcome", [["a search that", false], ["searches", true], ["signs differ", true]], rows),
    h("p", { class: "soft small" }, "Each line opens its rollouts above.")];
}

function disputed(world, browser) {
  const rows = world.disputed.slice(0, 12).map(([g, r, t]) => {
    const group = world.groups[g], turn = group.rollouts[r].turns[t];
    const blamers = world.methods.filter((_, m) => sign(turn.credit[m]) < 0), praisers = world.methods.filter((_, m) => sign(turn.credit[m]) > 0);
    return [h("button", { class: "link", type: "button", click: () => browser.open(g, r) }, turn.query || group.question),
      h("span", { class: "small", title: blamers.join(", ") }, `${blamers.length} −`), h("span", { class: "small", title: praisers.join(", ") }, `${praisers.length} +`), turn.c.toFixed(2)];
  });
  if (!rows.length) return h("p", { class: "soft" }, "No search is praised by one method and blamed by another.");
  return table("Disputed most", [["query", false], ["blame", true], ["praise", true], ["c", true]], rows);
}

const partOf = (part) => (part.first === part.last ? `step ${part.first}` : `steps ${part.first} to ${part.last}`);
const rate = (one) => (one ? [h("span", {}, one.value.toFixed(2)), h("span", { class: "soft small" }, ` (${one.low.toFixed(2)} to ${one.high.toFixed(2)}, of ${one.of})`)] : "–");

/** What a judge said of searches with c > 0.5, where one was asked. */
function judgeRates(world) {
  if (!world.judged.length) return null;
  return card(table("A judge on searches with c > 0.5", [["", false], ["asked", true], ["helpful", true], ["at least partially", true], ["found gold", true], ["no verdict", true]],
    world.judged.map((of) => [partOf(of), of.asked, rate(of.helpful), rate(of.partly), rate(of.gold), of.unreadable + of.failed])),
  h("p", { class: "soft small" }, "Drawn as CalibAdv sec. 4.5 draws them: at most 20 in each of five parts of the training."));
}

function goldRates(world) {
  const { truth: of } = world;
  if (!of) return card(h("h3", {}, "c against gold passages"), h("p", { class: "soft" }, "Of these questions no gold passage is known in the corpus, or no rollout is below its group's mean."));
  const rows = [["all steps", of.searches, rate(of.precision), rate(of.recall)],
    ...world.truth_by_step.map((part) => [partOf(part), part.searches, rate(part.precision), rate(part.recall)])];
  return card(table("c > 0 as a sign of a gold passage", [["", false], ["searches", true], ["precision", true], ["recall", true]], rows),
    h("p", { class: "soft small" }, "Of searches in rollouts below their group's mean, whose blame c softens; bootstrap 95 % over questions. The question of CalibAdv sec. 4.5, asked of gold passages in place of a judge."));
}

/** How much of what a search found is gold, by its c: over all steps, and in parts of the training. */
function calibration(world) {
  if (!world.truth) return null;
  const parts = [["all steps", world.truth], ...world.truth_by_step.map((part) => [partOf(part), part])];
  const bins = [...new Set(parts.flatMap(([, part]) => part.calibration.map(([c]) => c)))].sort((a, b) => a - b);
  const rows = parts.map(([name, part]) => [name, ...bins.map((bin) => {
    const found = part.calibration.find(([c]) => c === bin);
    return found ? [percent(found[1]), h("span", { class: "soft small" }, ` of ${found[2]}`)] : "–";
  })]);
  return card(table("Calibration: mean share of gold documents by c", [["", false], ...bins.map((bin) => [`c = ${bin.toFixed(2)}`, true])], rows),
    h("p", { class: "soft small" }, "c is calibrated if the share grows with it. \u201cOf\u201d: searches whose c is nearest."));
}
