"use strict";
const form = document.getElementById("ask"), about = form.dataset;
const prometheus = location.origin + about.prefix + about.prometheus;
if (!about.tenant) document.getElementById("tenant-field").remove();

function showValues(data) {
  const rows = data.resultType === "scalar" || data.resultType === "string" ? [{ metric: {}, value: data.result }] : data.result;
  const table = document.createElement("table");
  for (const one of rows.slice(0, 1000)) {
    const row = table.insertRow(), name = row.insertCell(), value = row.insertCell();
    name.className = "mono"; name.textContent = seriesName(one.metric);
    value.className = "number mono"; value.textContent = one.value ? one.value[1] : (one.values || []).map(([time, text]) => `${text} @${time}`).join("\n");
  }
  const place = document.getElementById("values");
  place.replaceChildren(table);
  if (!rows.length) place.innerHTML = '<p class="soft">Nothing at this moment.</p>';
  if (rows.length > 1000) place.insertAdjacentHTML("beforeend", `<p class="soft">${rows.length - 1000} more are not shown.</p>`);
}

async function ask(event) {
  if (event) event.preventDefault();
  const query = form.query.value.trim();
  if (!query) return;
  const range = Number(form.range.value), end = Math.floor(Date.now() / 1000), start = end - range;
  const step = Number(form.step.value) || Math.max(1, Math.round(range / 360));
  const tenant = form.tenant ? form.tenant.value : "";
  history.replaceState(null, "", `?${new URLSearchParams({ query, range, ...(form.step.value ? { step } : {}) })}`);
  const problem = document.getElementById("problem"), began = performance.now();
  problem.textContent = "";
  try {
    const now = await api(`${prometheus}/api/v1/query`, { query, time: end }, tenant);
    showValues(now.data);
    if (["scalar", "vector"].includes(now.data.resultType)) {
      const answer = await api(`${prometheus}/api/v1/query_range`, { query, start, end, step }, tenant);
      drawChart(document.getElementById("chart"), answer.data.result, start, end, step);
      problem.textContent = [...(answer.warnings || []), ...(answer.infos || [])].join("\n");
    } else document.getElementById("chart").innerHTML = '<p class="soft">Only scalars and instant vectors can be drawn.</p>';
    document.getElementById("took").textContent = `${Math.round(performance.now() - began)} ms`;
  } catch (error) { problem.textContent = error.message; }
}

form.onsubmit = ask;
form.query.onkeydown = (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) ask(event); };
const asked = new URLSearchParams(location.search);
if (asked.get("query")) {
  form.query.value = asked.get("query");
  if (asked.get("range")) form.range.value = asked.get("range");
  if (asked.get("step")) form.step.value = asked.get("step");
  ask();
}
