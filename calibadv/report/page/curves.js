// The curves of a run, and any metric by itself.

function runCurves(run) {
  let smooth = true;
  const grid = h("div", { class: "charts" });
  const own = h("div", { class: "charts" });
  const names = Object.keys(run.columns).filter((name) => name !== "step");
  const marks = run.collapse === null ? [] : [{ x: run.collapse, text: `collapse, step ${run.collapse}` }];

  function spec(chart) {
    const metrics = chart.metrics.filter(([name]) => run.columns[name]);
    const spans = run.alarms.filter((alarm) => metrics.some(([name]) => name === alarm.metric)).map((alarm) => ({ from: alarm.since, to: alarm.until, text: alarm.text }));
    return {
      title: chart.title, high: chart.high, share: chart.share, level: chart.level, log: chart.log_above, stacked: chart.stacked, spans,
      marks: metrics.some(([name]) => name === "reward/f1") ? marks : [],
      lines: metrics.map(([name, label, measured]) => {
        const points = pointsOf(run, name);
        if (measured || !smooth || points.length < 8) return { label, points, dots: measured };
        return { label, points: runningMean(points), raw: chart.stacked ? null : points };
      }),
    };
  }
  function draw() {
    crosshairs.clear();
    grid.replaceChildren(...run.charts.map((chart) => chartCard(spec(chart))));
  }
  function drawOwn(name) {
    if (!name) return own.replaceChildren();
    const points = pointsOf(run, name);
    const card = chartCard(spec({ title: name, metrics: [[name, name, points.length < 8]], high: null, share: false, level: null, log_above: null, stacked: false }));
    const rows = points.map(({ x, y }) => [x, short(y)]);
    own.replaceChildren(card, h("div", { class: "card pad" }, styled(h("div", {}, table(name, [["step", false], ["value", true]], rows)), { "max-height": "250px", overflow: "auto" })));
    return undefined;
  }
  draw();
  const smoothing = h("button", { class: "button", type: "button", "aria-pressed": "true", click: (event) => {
    smooth = !smooth;
    event.currentTarget.setAttribute("aria-pressed", String(smooth));
    draw();
  } }, "Smooth");
  return section("curves", "Curves", "by training step; a number that a step did not measure is a gap",
    h("div", { class: "row" }, smoothing, field("Any metric, with its numbers", select([["", "choose …"], ...names.map((name) => [name, name])], drawOwn))),
    own, grid);
}

function pointsOf(run, name) {
  const steps = run.columns.step;
  return (run.columns[name] || []).map((y, i) => ({ x: steps[i], y })).filter((point) => point.y !== null);
}
