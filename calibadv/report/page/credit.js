// One rollout as a conversation: what each turn thought, asked and read, and of every method its credit with its arithmetic.

const NOTHING = 1e-6;
const sign = (value) => (Math.abs(value) < NOTHING ? 0 : Math.sign(value));
const WORDS = { "-1": "blame", 0: "none", 1: "praise" };

/** `shown`: indices of the methods whose credit is drawn; `matches`: turns that a filter looked for. */
function conversation(world, group, rollout, shown, matches) {
  const silver = new Set(group.silver), gold = new Set(group.gold);
  const scale = Math.max(...group.rollouts.flatMap((one) => one.turns.flatMap((turn) => shown.map((m) => Math.abs(turn.credit[m])))), 1e-9);
  const shared = rollout.turns.map((turn) => turn.node !== undefined && group.rollouts.some((one) => one !== rollout && one.turns.some((other) => other.node === turn.node)));
  return rollout.turns.map((turn, i) => h("article", { class: matches.has(i) ? "turn match" : "turn", "aria-label": `turn ${i + 1}, ${turn.kind}` },
    h("div", { class: "number", "aria-hidden": "true" }, i + 1),
    h("div", { class: "body" },
      h("div", { class: "title" }, h("b", {}, turn.kind),
        h("span", { class: "soft small" }, plural(turn.tokens, "token")),
        turn.c === undefined ? null : h("span", { class: "pill", title: "the share of this search's documents that are silver" }, `c = ${turn.c.toFixed(2)}`),
        turn.reward === undefined ? null : h("span", { class: "pill", title: "the turn's own reward, of the method that trained" }, `turn reward ${number(turn.reward, 2)}`),
        shared[i] ? h("span", { class: "pill", title: "several rollouts of this question begin with this turn" }, "shared with other rollouts") : null,
        turn.opposed ? h("span", { class: "pill accent", title: "pairs of methods of which one blames this search and the other praises it" }, plural(turn.opposed, "method pair opposed", "method pairs opposed")) : null),
      turn.think ? thought(turn.think) : null,
      turn.query !== undefined ? h("div", { class: "query" }, turn.query) : null,
      turn.docs ? h("div", { class: "docs" }, turn.docs.map((place) => documentLine(world.documents[place], silver.has(place), gold.has(place)))) : null,
      turn.kind === "answer" ? h("div", { class: "answer" }, h("b", {}, rollout.answer ?? "(no answer)")) : null,
      turn.kind === "void" || turn.kind === "call" ? h("div", { class: "answer soft" }, turn.text || "(nothing)") : null,
      (turn.told || []).map(([tool, text]) => h("p", { class: "soft small" }, h("b", {}, `${tool}: `), text)),
      turn.kindOf && turn.kindOf !== "OTHER" ? h("p", { class: "soft small" }, `A search that ${world.kinds.find((kind) => kind.name === turn.kindOf).text}.`) : null,
      h("div", { class: "credits" }, shown.map((m) => creditLine(world, group, turn, m, scale))))));
}

function thought(text) {
  const paragraph = h("p", { class: "think long" }, text);
  if (text.length < 260) {
    paragraph.classList.remove("long");
    return paragraph;
  }
  const more = h("button", { class: "link small", type: "button", click: () => {
    more.textContent = paragraph.classList.toggle("long") ? "more" : "less";
  } }, "more");
  return h("div", {}, paragraph, more);
}

function documentLine(doc, silver, gold) {
  return h("details", { class: silver ? "doc silver" : "doc" },
    h("summary", {}, h("span", { class: "mark", "aria-hidden": "true" }, silver ? "●" : "○"), h("span", {}, doc.title || doc.id),
      silver ? h("span", { class: "tag silver", title: "a correct rollout of this question retrieved it too" }, "silver") : null,
      gold ? h("span", { class: "tag gold", title: "a gold passage of the question" }, "★ gold") : null),
    h("div", { class: "text" }, doc.text || "(its text is not kept)"));
}

function creditLine(world, group, turn, m, scale) {
  const name = world.methods[m], value = turn.credit[m], way = sign(value);
  const fill = way ? styled(h("i", { class: way > 0 ? "pos" : "neg" }), { width: `${Math.max(1, (50 * Math.abs(value)) / scale)}%` }) : null;
  const said = arithmetic(turn.why[m], value);
  return h("details", { class: m === 0 ? "credit trained" : "credit" },
    h("summary", { title: said, "aria-label": `${name}: ${signed(value)}, ${WORDS[way]}` },
      h("span", { class: "method" }, name), h("span", { class: "bar", "aria-hidden": "true" }, fill), h("span", { class: "value" }, signed(value))),
    why(turn.why[m], value, group.notes[name]));
}

/** The sum of products in one line of text, with the names of its numbers. */
function arithmetic(reasons, value) {
  if (!reasons) return "this method tells no reasons";
  const [note, products] = reasons;
  const sum = products.map((product) => product.map(([name, term, from]) => `${short(term)} [${name}${from ? `: ${from}` : ""}]`).join(" × ")).join(" + ");
  return `${sum} = ${signed(value, 3)}${note ? ` (${note})` : ""}`;
}

function why(reasons, value, caution) {
  if (!reasons) return h("div", { class: "why" }, h("p", { class: "soft" }, "This method tells no reasons."));
  const [note, products] = reasons;
  return h("div", { class: "why" },
    products.map((product, p) => h("div", { class: "sum" },
      product.map(([name, term, from], t) => [
        t ? h("span", { class: "op" }, "×") : p ? h("span", { class: "op" }, "+") : null,
        h("div", { class: "term" }, h("b", {}, short(term)), h("span", {}, name), from ? h("span", {}, from) : null)]),
      p === products.length - 1 ? [h("span", { class: "op" }, "="), h("div", { class: "term" }, h("b", {}, signed(value, 3)), h("span", {}, "credit of the turn"))] : null)),
    note ? h("p", { class: "soft" }, note) : null,
    caution ? h("p", { class: "soft" }, `Note: ${caution}.`) : null);
}
