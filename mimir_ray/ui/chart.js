// Draws range-query answers as lines. No dependencies; one SVG, one legend.
"use strict";

const PALETTE = ["#2f7ed8", "#e0703a", "#3aa66b", "#b455c9", "#c9a227", "#d64562", "#23a6b5", "#8a6d3b", "#6b7ae8", "#7a9a2b"];

function seriesName(labels) {
  const rest = Object.entries(labels).filter(([name]) => name !== "__name__").map(([name, value]) => `${name}=${JSON.stringify(value)}`);
  return (labels.__name__ || "") + (rest.length || !labels.__name__ ? `{${rest.join(", ")}}` : "");
}

function short(value) {
  const size = Math.abs(value);
  for (const [limit, unit] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]]) if (size >= limit) return `${+(value / limit).toPrecision(4)}${unit}`;
  return size !== 0 && size < 1e-4 ? value.toExponential(2) : String(+value.toPrecision(4));
}

function ticks(low, high, count) {
  const raw = (high - low || Math.abs(high) || 1) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((one) => one * power).find((one) => one >= raw);
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-9; at += step) found.push(at);
  return found;
}

function clock(seconds, span) {
  const moment = new Date(seconds * 1000);
  const time = moment.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", ...(span < 600 ? { second: "2-digit" } : {}) });
  return span > 86400 ? `${moment.toLocaleDateString([], { month: "short", day: "numeric" })} ${time}` : time;
}

function drawChart(place, result, start, end, step, options = {}) {
  const [width, height, left, right, top, bottom] = [Math.max(320, place.clientWidth || 1000), options.height || 320, 64, 12, 10, 26];
  const lines = result.slice(0, options.most || 100).map((series, at) => ({
    name: seriesName(series.metric),
    color: PALETTE[at % PALETTE.length],
    points: series.values.map(([time, text]) => [time, Number(text)]).filter(([, value]) => Number.isFinite(value)),
  }));
  const values = lines.flatMap((line) => line.points.map(([, value]) => value));
  if (!values.length) { place.innerHTML = '<p class="soft">No data in this range.</p>'; return; }
  let low = values.reduce((a, b) => Math.min(a, b)), high = values.reduce((a, b) => Math.max(a, b));
  if (low === high) { const pad = Math.abs(low) * 0.1 || 1; low -= pad; high += pad; }
  if (low > 0 && low < (high - low)) low = 0;
  const x = (time) => left + ((time - start) / (end - start || 1)) * (width - left - right);
  const y = (value) => top + (1 - (value - low) / (high - low)) * (height - top - bottom);
  const parts = [];
  for (const at of ticks(low, high, 5)) parts.push(`<line class="grid" x1="${left}" x2="${width - right}" y1="${y(at)}" y2="${y(at)}"/><text x="${left - 8}" y="${y(at) + 4}" text-anchor="end">${short(at)}</text>`);
  const marks = width < 600 ? 3 : 6;
  for (let at = 0; at <= marks; at++) { const time = start + ((end - start) * at) / marks; parts.push(`<text x="${x(time)}" y="${height - 8}" text-anchor="${at === 0 ? "start" : at === marks ? "end" : "middle"}">${clock(time, end - start)}</text>`); }
  lines.forEach((line, index) => {
    let path = "", before = -Infinity;
    for (const [time, value] of line.points) { path += `${time - before > step * 1.5 ? "M" : "L"}${x(time).toFixed(1)} ${y(value).toFixed(1)}`; before = time; }
    parts.push(`<path d="${path}" stroke="${line.color}" data-line="${index}" stroke-linecap="round"/>`);
  });
  place.innerHTML = `<svg class="chart" viewBox="0 0 ${width} ${height}" role="img" aria-label="chart">${parts.join("")}<line class="grid" id="cursor" y1="${top}" y2="${height - bottom}" visibility="hidden"/></svg><div class="legend"></div>`;
  const svg = place.querySelector("svg"), legend = place.querySelector(".legend"), cursor = svg.querySelector("#cursor");
  const entries = lines.map((line, index) => {
    const entry = document.createElement("div");
    entry.innerHTML = `<i style="background:${line.color}"></i><span class="mono"></span><b class="mono"></b>`;
    entry.children[1].textContent = line.name;
    entry.onmouseenter = () => svg.querySelectorAll("path").forEach((path) => { path.style.opacity = path.dataset.line === String(index) ? 1 : 0.15; });
    entry.onmouseleave = () => svg.querySelectorAll("path").forEach((path) => { path.style.opacity = 1; });
    legend.append(entry);
    return entry;
  });
  if (result.length > lines.length) legend.insertAdjacentHTML("beforeend", `<p class="soft">${result.length - lines.length} more series are not drawn.</p>`);
  svg.onmousemove = (event) => {
    const box = svg.getBoundingClientRect();
    const time = start + (((event.clientX - box.left) / box.width * width - left) / (width - left - right)) * (end - start);
    cursor.setAttribute("visibility", "visible"); cursor.setAttribute("x1", x(time)); cursor.setAttribute("x2", x(time));
    lines.forEach((line, index) => {
      const near = line.points.reduce((best, point) => (Math.abs(point[0] - time) < Math.abs(best[0] - time) ? point : best), line.points[0]);
      entries[index].children[2].textContent = near && Math.abs(near[0] - time) <= step ? short(near[1]) : "";
    });
  };
  svg.onmouseleave = () => { cursor.setAttribute("visibility", "hidden"); entries.forEach((entry) => { entry.children[2].textContent = ""; }); };
}

async function api(path, parameters, tenant) {
  const answer = await fetch(`${path}?${new URLSearchParams(parameters)}`, { headers: tenant ? { "X-Scope-OrgID": tenant } : {} });
  const text = await answer.text();
  let body;
  try { body = JSON.parse(text); } catch { throw new Error(text || `HTTP ${answer.status}`); }
  if (body.status !== "success") throw new Error(`${body.errorType}: ${body.error}`);
  return body;
}
