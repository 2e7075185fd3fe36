// What the pages cannot do without a script: live figures, charts, and the key that leads to the search box.
// Everything that it puts into a page was written, and escaped, by the server.
"use strict";

(() => {
  const HISTORY_S = 3600;
  const charts = new Set(); // [chart, element]: for a new size or a new colour scheme

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const plain = (value, digits) => value == null ? "—" : value.toLocaleString("en", { maximumFractionDigits: digits });

  // Where nobody points, the legend tells the last values.
  const rest = (chart) => { if (chart.data[0].length) chart.setLegend({ idx: chart.data[0].length - 1 }); };

  function axes(format) {
    const line = { stroke: colour("--line-soft"), width: 1 };
    const common = { stroke: colour("--faint"), font: "11px system-ui, sans-serif", grid: line, ticks: { show: false } };
    return [
      { ...common, grid: { show: false }, space: 64, values: [
        [86400, "{YYYY}-{MM}-{DD}", null, null, null, null, null, null, 1],
        [3600, "{HH}:{mm}", "\n{YYYY}-{MM}-{DD}", null, "\n{MM}-{DD}", null, null, null, 1],
        [60, "{HH}:{mm}", "\n{YYYY}-{MM}-{DD}", null, "\n{MM}-{DD}", null, null, null, 1],
        [1, "{HH}:{mm}:{ss}", "\n{YYYY}-{MM}-{DD}", null, "\n{MM}-{DD}", null, null, null, 1],
        [0.001, "{HH}:{mm}:{ss}.{fff}", null, null, null, null, null, null, 1],
      ] },
      { ...common, size: 48, values: (_, ticks) => ticks.map(format) },
    ];
  }

  function series(label, name, format, more) {
    const stroke = colour(name);
    return { label, stroke, width: 1.5, points: { show: false }, value: (_, v) => format(v), spanGaps: false, ...more };
  }

  function draw(element, kind, data) {
    const digits = (value) => plain(value, value != null && Math.abs(value) < 10 ? 1 : 0);
    const scale = 10 ** Number(element.dataset.scale || 0);
    const money = (value) => plain(value == null ? null : value / scale, Number(element.dataset.scale || 0));
    const stepped = { paths: uPlot.paths.stepped({ align: 1 }), fill: colour("--accent-soft") };
    const lines = {
      rates: [series("accepted", "--series-1", digits), series("applied", "--series-2", digits), series("refused", "--series-3", digits)],
      latency: [series("median", "--series-1", digits), series("99 %", "--series-3", digits)],
      balance: [series("balance", "--series-1", money, stepped)],
    }[kind];
    const format = kind === "balance" ? money : digits;
    const time = { label: "UTC", value: kind === "balance" ? "{MM}-{DD} {HH}:{mm}" : "{HH}:{mm}:{ss}" };
    const range = (_, low, high) => {
      if (low == null) return [0, 1];
      const least = kind === "balance" ? Math.min(0, low) : 0;
      return [least, Math.max(high * 1.08, least + (kind === "latency" ? 10 : 1))];
    };
    const options = {
      width: element.clientWidth, height: element.clientHeight - 26,
      tzDate: (ts) => uPlot.tzDate(new Date(ts * 1e3), "Etc/UTC"),
      series: [time, ...lines], axes: axes(format), scales: { y: { range } },
      hooks: { ready: [rest] }, cursor: { drag: { x: false, y: false }, points: { size: 6 } }, legend: { live: true },
    };
    if (kind !== "balance") options.scales.x = { range: () => { const now = Date.now() / 1e3; return [span(now), now]; } };
    element.replaceChildren();
    const chart = new uPlot(options, data, element);
    chart.over.addEventListener("mouseleave", () => rest(chart));
    charts.add({ chart, element, again: () => draw(element, kind, chart.data) });
    return chart;
  }

  // The last hour, or what there is of it, but no less than five minutes.
  let began = null;
  const span = (now) => Math.max(now - HISTORY_S, Math.min(began ?? now, now - 300));

  const redraw = () => { const all = [...charts]; charts.clear(); for (const each of all) { each.chart.destroy(); live.set(each.element, each.again()); } };
  const live = new Map(); // element → its chart
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  new ResizeObserver(() => {
    for (const { chart, element } of charts) {
      if (element.clientWidth && chart.width !== element.clientWidth) chart.setSize({ width: element.clientWidth, height: element.clientHeight - 26 });
    }
  }).observe(document.documentElement);

  // --- the overview: what the server sends goes into the page as it is ---

  function follow(place) {
    const label = document.querySelector("[data-live-state]");
    const told = (state, words) => { label.dataset.liveState = state; label.textContent = words; };
    let points = [];
    const columns = (...picked) => [points.map((p) => p[0]), ...picked.map((i) => points.map((p) => p[i]))];
    const plot = () => {
      for (const element of place.querySelectorAll("[data-chart]")) {
        const data = element.dataset.chart === "rates" ? columns(1, 2, 3) : columns(4, 5);
        if (live.has(element)) { const chart = live.get(element); chart.setData(data); if (chart.cursor.idx == null) rest(chart); }
        else live.set(element, draw(element, element.dataset.chart, data));
      }
    };
    const shown = new Map(); // part → its last HTML
    const source = new EventSource(place.dataset.live);
    source.addEventListener("open", () => told("live", "live"));
    source.addEventListener("error", () => told("lost", "not connected; trying again"));
    source.addEventListener("history", (event) => { points = JSON.parse(event.data); began = points.length ? points[0][0] : null; plot(); });
    source.addEventListener("sample", (event) => {
      points.push(JSON.parse(event.data));
      began ??= points[0][0];
      while (points.length && points[0][0] < Date.now() / 1e3 - HISTORY_S) points.shift();
      plot();
    });
    source.addEventListener("state", (event) => {
      const fresh = new DOMParser().parseFromString(JSON.parse(event.data), "text/html");
      for (const part of fresh.querySelectorAll("[data-part]:not([data-keep])")) {
        const name = part.dataset.part, html = part.innerHTML;
        const old = place.querySelector(`[data-part="${name}"]`);
        if (!old || shown.get(name) === html || old.contains(document.activeElement)) continue;
        shown.set(name, html);
        old.innerHTML = html;
      }
    });
    addEventListener("pagehide", () => source.close());
  }

  // --- forms ---

  function only(form) { // fields that one type of command has
    const type = form.querySelector("[name=type]");
    const apply = () => { for (const part of form.querySelectorAll("[data-only]")) part.hidden = part.dataset.only !== type.value; };
    type.addEventListener("change", apply);
    apply();
  }

  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, select, textarea");
    if (event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) {
      const box = document.querySelector(".search input");
      if (box) { event.preventDefault(); box.focus(); box.select(); }
    } else if (event.key === "Escape") {
      for (const menu of document.querySelectorAll(".menu[open]")) { menu.open = false; menu.querySelector("summary").focus(); }
    }
  });
  document.addEventListener("click", (event) => {
    for (const menu of document.querySelectorAll(".menu[open]")) if (!menu.contains(event.target)) menu.open = false;
  });
  document.addEventListener("toggle", (event) => {
    if (event.target.matches?.(".menu[open]")) event.target.querySelector("input:not([type=hidden]), select")?.focus();
  }, true);

  document.addEventListener("DOMContentLoaded", () => {
    for (const form of document.querySelectorAll("form:has([data-only])")) only(form);
    for (const element of document.querySelectorAll("[data-points]")) draw(element, element.dataset.chart, JSON.parse(element.dataset.points));
    const place = document.querySelector("[data-live]");
    if (place) follow(place);
  });
})();
