// The browser of rollouts: filters, the list of what they let through, and the one that is looked at.

const PAGE = 120;  // rollouts of the list that are there at once
const ALWAYS = ["calibadv", "grpo", "criticsearch", "mt_grpo"];  // beside the method that trained, until others are chosen

/** `world` is the run's rollouts; `open(g, r, turn)` of the result shows one from elsewhere, `filter(changes)` filters. */
function rolloutBrowser(world, name) {
  if (!world) {
    return { element: section("rollouts", "Rollouts", null, h("div", { class: "card none" }, "The run has stored no groups: tracking.store_groups was \"none\", or no step that keeps them was made.")) };
  }
  const all = world.groups.flatMap((group, g) => group.rollouts.map((rollout, r) => ({ group, g, rollout, r, words: words(world, group, rollout) })));
  const chosen = new Set([0, ...ALWAYS.map((name) => world.methods.indexOf(name)).filter((m) => m > 0)].slice(0, 4));
  const wanted = { text: "", step: "", outcome: "", low: "", high: "", searches: "", kind: "", blames: "", spares: "" };
  const controls = {};
  const list = h("ul", { "aria-label": "Rollouts" });
  const count = h("p", { class: "soft small", role: "status" });
  const detail = h("div", { class: "card talk" });
  let found = [], shown = PAGE, at = null;

  const blamed = (turn, method) => sign(turn.credit[world.methods.indexOf(method)]) < 0;
  /** The searches of a rollout that the filters are about; null where they are about none. */
  function matching(rollout) {
    if (!wanted.kind && !wanted.blames && !wanted.spares) return null;
    return new Set(rollout.turns.flatMap((turn, i) => {
      if (turn.kindOf === undefined) return [];
      const fits = (!wanted.kind || (wanted.kind === "opposed" ? turn.opposed > 0 : turn.kindOf === wanted.kind))
        && (!wanted.blames || blamed(turn, wanted.blames)) && (!wanted.spares || !blamed(turn, wanted.spares));
      return fits ? [i] : [];
    }));
  }
  function passes({ group, rollout, words: text }) {
    const mean = group.rollouts.reduce((sum, one) => sum + one.reward, 0) / group.rollouts.length;
    const searches = rollout.turns.filter((turn) => turn.kind === "search").length;
    const outcome = { above: rollout.reward > mean + NOTHING, below: rollout.reward < mean - NOTHING, right: rollout.f1 >= 1, cut: rollout.truncated || rollout.turns.some((turn) => turn.kind === "void") };
    return (!wanted.text || wanted.text.toLowerCase().split(/\s+/).every((word) => text.includes(word)))
      && (wanted.step === "" || group.step === Number(wanted.step)) && (!wanted.outcome || outcome[wanted.outcome])
      && (wanted.low === "" || rollout.reward >= Number(wanted.low)) && (wanted.high === "" || rollout.reward <= Number(wanted.high))
      && (wanted.searches === "" || (wanted.searches === "4" ? searches >= 4 : searches === Number(wanted.searches)))
      && (matching(rollout)?.size ?? 1) > 0;
  }
  function refresh() {
    found = all.filter(passes);
    shown = PAGE;
    fill();
    count.textContent = `${found.length.toLocaleString("en")} of ${plural(all.length, "rollout")}`;
    if (found.includes(at)) return draw();  // other turns of it may be looked for
    look(found[0] || null);
    if (list.parentElement) list.parentElement.scrollTop = 0;
    return undefined;
  }
  function fill() {
    list.replaceChildren(...found.slice(0, shown).map((entry) => h("li", {}, item(entry))));
    if (found.length > shown) list.append(h("li", {}, h("button", { class: "item", type: "button", click: () => { shown += PAGE; fill(); } }, `show ${Math.min(PAGE, found.length - shown)} more`)));
  }
  function item(entry) {
    const { group, rollout, r } = entry;
    const opposed = rollout.turns.some((turn) => turn.opposed);
    return h("button", { class: "item", type: "button", "aria-current": String(entry === at), click: () => look(entry), keydown: (event) => {
      const move = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (!move) return;
      event.preventDefault();
      step(move, true);
    } },
    h("span", { class: "q" }, group.question),
    h("span", { class: "meta" }, rewardPill(rollout), h("span", {}, `step ${group.step}`), h("span", {}, `rollout ${r + 1}`), strip(rollout), opposed ? h("span", { title: "methods disagree about a search" }, "⇄") : null));
  }
  /** The credit of each turn by the method that trained, small. */
  function strip(rollout) {
    const scale = Math.max(...rollout.turns.map((turn) => Math.abs(turn.credit[0])), 1e-9);
    return h("span", { class: "strip", role: "img", "aria-label": `credit of its turns: ${rollout.turns.map((turn) => signed(turn.credit[0])).join(", ")}` },
      rollout.turns.map((turn) => styled(h("i", { class: ["neg", "", "pos"][sign(turn.credit[0]) + 1] }), { height: `${sign(turn.credit[0]) ? 3 + (5 * Math.abs(turn.credit[0])) / scale : 2}px` })));
  }
  function look(entry) {
    at = entry;
    for (const [i, other] of [...list.querySelectorAll(".item")].entries()) other.setAttribute("aria-current", String(found[i] === entry));
    draw();
  }
  function step(move, focus) {
    const place = Math.max(0, Math.min(found.length - 1, found.indexOf(at) + move));
    if (place >= shown) { shown += PAGE; fill(); }
    look(found[place] || null);
    const button = list.querySelectorAll(".item")[place];
    if (!button) return;
    if (focus) button.focus({ preventScroll: true });
    const box = list.parentElement.getBoundingClientRect(), own = button.getBoundingClientRect();
    if (own.top < box.top || own.bottom > box.bottom) list.parentElement.scrollTop += own.top - box.top - box.height / 3;
  }
  function draw() {
    if (!at) return detail.replaceChildren(h("p", { class: "none" }, "No rollout passes these filters."));
    const { group, rollout, r, g } = at;
    const reward = Object.entries(rollout.parts).map(([name, value]) => `${name} ${number(value, 2)}`);
    const endings = [rollout.truncated ? "cut by a token limit" : "", rollout.forced ? "searched where only an answer was left" : ""].filter(Boolean);
    detail.replaceChildren(
      h("header", {},
        h("p", { class: "soft small" }, `step ${group.step} · ${group.id}${Object.entries(group.metadata).map(([key, value]) => ` · ${key} ${value}`).join("")} · `,
          h("a", { class: "link", href: `#rollout=${g}.${r}`, title: "This file's address with this leads here" }, "link to this rollout")),
        h("h3", {}, group.question),
        h("p", {}, h("span", { class: "soft" }, "golden: "), group.golden.join(" / ")),
        h("div", { class: "siblings", role: "group", "aria-label": "Rollouts of this question" }, group.rollouts.map((other, i) => h("button", {
          class: "button", type: "button", "aria-pressed": String(i === r), click: () => look(all.find((entry) => entry.g === g && entry.r === i)),
        }, `${i + 1}: `, number(other.reward, 2)))),
        h("p", { class: "soft small" }, [`reward ${number(rollout.reward, 2)}`, `F1 ${number(rollout.f1, 2)}`, `format ${number(rollout.format, 0)}`, ...reward, plural(rollout.tokens, "token"), ...endings].join(" · "))),
      h("div", { class: "row", role: "group", "aria-label": "Methods whose credit is shown" }, world.methods.map((name, m) => h("button", {
        class: "button small", type: "button", "aria-pressed": String(chosen.has(m)), title: m ? "Show its credit" : "The method that trained",
        click: () => { chosen.has(m) ? chosen.delete(m) : chosen.add(m); draw(); },
      }, m ? name : `${name} (trained)`))),
      ...conversation(world, group, rollout, [...chosen].sort((a, b) => a - b), matching(rollout) || new Set()),
      h("p", { class: "soft small" }, "The same in a terminal: ", h("code", {}, `calibadv explain ${name} --step ${group.step} --question ${group.id}`)));
    return undefined;
  }
  function set(changes) {
    Object.assign(wanted, Object.fromEntries(Object.keys(wanted).map((name) => [name, ""])), changes);
    for (const [name, control] of Object.entries(controls)) control.value = wanted[name];
    refresh();
    document.getElementById("rollouts").scrollIntoView();
  }
  const control = (name, element) => { controls[name] = element; return element; };
  const change = (name) => (value) => { wanted[name] = value; refresh(); };
  const typed = (name, attributes) => control(name, h("input", { ...attributes, input: (event) => change(name)(event.target.value) }));
  const picked = (name, options) => control(name, select(options, change(name)));
  const methods = world.methods.map((name) => [name, name]);
  const stepsThere = [...new Set(world.groups.map((group) => group.step))];
  const { stored } = world;
  const note = `${plural(world.groups.length, "group")} of ${plural(stored.read, "step")}${stored.read < stored.steps || stored.groups > world.groups.length ? `, evenly of the ${plural(stored.steps, "step")} that are stored` : ""}; steps count from 0, as for calibadv explain`;
  const element = section("rollouts", "Rollouts", note,
    h("div", { class: "card filters", role: "search", "aria-label": "Filter the rollouts" },
      field("Text", typed("text", { type: "search", placeholder: "of question, query, document, answer" }), true),
      field("Step", picked("step", [["", "any"], ...stepsThere.map((one) => [one, one])])),
      field("Outcome", picked("outcome", [["", "any"], ["above", "above its group"], ["below", "below its group"], ["right", "F1 1"], ["cut", "void or cut"]])),
      field("Reward from", typed("low", { type: "number", step: "0.1" })), field("to", typed("high", { type: "number", step: "0.1" })),
      field("Searches", picked("searches", [["", "any"], [0, 0], [1, 1], [2, 2], [3, 3], [4, "4 or more"]])),
      field("A search that", picked("kind", [["", "any"], ["opposed", "methods disagree about"], ...world.kinds.map((kind) => [kind.name, kind.text])]), true),
      field("blamed by", picked("blames", [["", "any"], ...methods])), field("not by", picked("spares", [["", "any"], ...methods])),
      h("button", { class: "button", type: "button", click: () => set({}) }, "Clear")),
    h("div", { class: "browser" }, h("div", { class: "stack" }, count, h("div", { class: "card list" }, list)), detail));
  element.addEventListener("keydown", (event) => {
    if (/INPUT|SELECT/.test(event.target.tagName) || !"jk".includes(event.key) || event.key.length !== 1) return;
    step(event.key === "j" ? 1 : -1, false);
  });
  function open(g, r) {
    const entry = all.find((one) => one.g === g && one.r === r);
    const place = found.indexOf(entry);
    if (place >= shown) { shown = place + PAGE; fill(); }
    look(entry);
    step(0, false);
  }
  refresh();
  return {
    element,
    filter: set,
    open(g, r) { set({}); open(g, r); },
    /** Opens what the address names, else what one would look for. */
    begin() {
      const named = location.hash.match(/^#rollout=(\d+)\.(\d+)$/)?.slice(1).map(Number);
      if (named && world.groups[named[0]]?.rollouts[named[1]]) {
        open(...named);
        element.scrollIntoView();
      } else if (world.disputed.length && !named) open(...world.disputed[0]);
    },
  };
}

const rewardPill = (rollout) => h("span", { class: rollout.reward > 0 ? "pill good" : "pill bad" }, `${rollout.reward > 0 ? "✓" : "✗"} ${number(rollout.reward, 2)}`);

function words(world, group, rollout) {
  const turns = rollout.turns.flatMap((turn) => [turn.query, turn.think, ...(turn.docs || []).map((place) => world.documents[place].title)]);
  return [group.question, group.id, rollout.answer, ...group.golden, ...turns].filter(Boolean).join(" ").toLowerCase();
}
