"use strict";
const home = document.getElementById("home").dataset;
const root = location.origin + home.prefix, prometheus = root + home.prometheus;

async function value(expression) {
  const { data } = await api(`${prometheus}/api/v1/query`, { query: expression }, home.tenant);
  return data.result.length ? Number(data.result[0].value[1]) : NaN;
}

function bytes(count) { return count >= 2 ** 30 ? `${(count / 2 ** 30).toFixed(2)} GiB` : `${(count / 2 ** 20).toFixed(0)} MiB`; }

async function number(id, expression, show = short) {
  try { const found = await value(expression); document.getElementById(id).textContent = Number.isNaN(found) ? "–" : show(found); }
  catch (error) { document.getElementById(id).textContent = "–"; document.getElementById(id).title = error.message; }
}

async function chart(id, expression) {
  const end = Math.floor(Date.now() / 1000), start = end - 1800, step = 10;
  const { data } = await api(`${prometheus}/api/v1/query_range`, { query: expression, start, end, step }, home.tenant);
  if (data.result.length) drawChart(document.getElementById(id), data.result, start, end, step, { height: 240, most: 12 });
}

async function services() {
  const answer = await fetch(`${root}/services`, { headers: { Accept: "application/json" } });
  const table = document.createElement("table");
  for (const one of (await answer.json()).services) {
    const row = table.insertRow();
    row.insertCell().textContent = one.service;
    row.insertCell().innerHTML = `<span class="state ${one.status.toLowerCase()}">${one.status}</span>`;
    row.insertCell().textContent = one.detail;
  }
  document.getElementById("services").replaceChildren(table);
}

async function refresh() {
  const work = [
    number("rate", 'sum(rate(cortex_distributor_received_samples_total[1m]))'),
    number("series", "sum(cortex_ingester_memory_series)"),
    number("queries", "sum(rate(cortex_query_frontend_queries_total[1m]))"),
    number("memory", "sum(process_resident_memory_bytes{job=\"mimir-ray\"})", bytes),
    chart("rate-chart", "sum by (user) (rate(cortex_distributor_received_samples_total[1m]))"),
    chart("cpu-chart", 'sum by (pod) (rate(process_cpu_seconds_total{job="mimir-ray"}[1m]))'),
    services(),
  ];
  await Promise.allSettled(work);
}

const tenantLine = home.tenant ? `\n    headers: {X-Scope-OrgID: demo}` : "";
document.getElementById("remote-write").textContent = `remote_write:\n  - url: ${root}/api/v1/push${tenantLine}`;
document.getElementById("grafana").textContent = prometheus;
document.getElementById("curl").textContent = `curl -s${home.tenant ? " -H 'X-Scope-OrgID: demo'" : ""} '${prometheus}/api/v1/query?query=up'`;
refresh();
setInterval(refresh, 10000);
