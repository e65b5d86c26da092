// Puts the page together: all runs beside each other where there are several, then one run, which may be chosen.

const SECTIONS = [["runs", "Runs"], ["compared", "By method"], ["summary", "Summary"], ["curves", "Curves"], ["rollouts", "Rollouts"], ["methods", "Methods"], ["faults", "Faults"], ["configuration", "Configuration"]];
const content = document.getElementById("content");

function theme() {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const set = (on) => { document.documentElement.dataset.theme = on ? "dark" : "light"; };
  set(dark.matches);
  dark.addEventListener("change", (event) => set(event.matches));
  document.getElementById("theme").addEventListener("click", () => set(document.documentElement.dataset.theme !== "dark"));
}

function navigation() {
  const nav = document.getElementById("nav");
  const there = SECTIONS.filter(([id]) => document.getElementById(id));
  nav.replaceChildren(...there.map(([id, text]) => h("a", { href: `#${id}` }, text)));
  const mark = () => {
    const current = there.filter(([id]) => document.getElementById(id).getBoundingClientRect().top < 140).at(-1) || there[0];
    for (const [i, link] of [...nav.children].entries()) there[i] === current ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current");
  };
  document.addEventListener("scroll", mark, { passive: true });
  mark();
}

async function showRun(head, index, holder) {
  const run = head.runs[index];
  const world = await payload(`rollouts-${index}`);
  crosshairs.clear();
  const browser = rolloutBrowser(world, run.name);
  holder.replaceChildren(runSummary(run), runCurves(run), browser.element, methodComparison(world, browser) || "", runFaults(run), runSettings(run));
  browser.begin?.();
  onhashchange = () => { if (location.hash.startsWith("#rollout=")) browser.begin?.(); };
  navigation();
}

async function begin() {
  theme();
  const head = await payload("head");
  const one = h("div", {});
  styled(one, { display: "grid", gap: "40px", "min-width": "0" });
  const runs = select(head.runs.map((run, i) => [i, run.name]), (i) => showRun(head, Number(i), one));
  const choose = async (i) => {
    runs.value = String(i);
    await showRun(head, i, one);
    document.getElementById("summary").scrollIntoView();
  };
  const choice = head.runs.length > 1 ? h("div", { class: "card filters" }, field("One run", runs, true)) : "";
  content.replaceChildren(...(head.cells.length ? manyRuns(head, choose) : []), choice, one, h("p", { class: "soft small" }, `Written ${head.written} by calibadv report. This file is whole: it asks no server for anything.`));
  await showRun(head, 0, one);
  document.documentElement.dataset.ready = "true";
}

begin().catch((error) => {
  content.replaceChildren(h("h1", {}, "This page could not be drawn"), h("p", {}, typeof DecompressionStream === "undefined" ? "The browser is too old to unpack it: one of 2023 or later is needed." : String(error)));
  throw error;
});
