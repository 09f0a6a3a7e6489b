"use strict";
// Without this the page is whole: it adds times of day, values under the pointer, and a page of a run that goes on is read again.
for (const time of document.querySelectorAll("time[data-seconds]")) {
  const date = new Date(1000 * time.dataset.seconds);
  time.dateTime = date.toISOString();
  time.textContent = date.toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
}

function shown(value, unit) {
  if (unit === "part") return (100 * value).toPrecision(3) + " %";
  if (unit === "bytes") return (value / 1e9).toFixed(2) + " GB";
  const size = Math.abs(value);
  if (size >= 1e4) return Math.round(value).toLocaleString();
  if (size >= 1e-3 || size === 0) return String(+value.toPrecision(5));
  return value.toExponential(2);
}

for (const plot of document.querySelectorAll(".plot")) {
  const { low, high, log, steps, unit } = plot.dataset;
  const cursor = plot.querySelector(".cursor"), readout = plot.querySelector(".readout");
  const curves = [...plot.querySelectorAll(".curve")].map((curve) => ({
    name: curve.dataset.name,
    colour: curve.classList[1],
    points: curve.getAttribute("d").slice(1).split("L").map((point) => point.split(" ").map(Number)),
  }));
  const value = (y) => {
    const place = 1 - y / 1000;
    return log === "true" ? low * (high / low) ** place : +low + place * (high - low);
  };
  const hide = () => { cursor.hidden = readout.hidden = true; };
  plot.addEventListener("pointerleave", hide);
  plot.addEventListener("pointermove", (event) => {
    const frame = plot.getBoundingClientRect();
    const at = Math.min(1000, Math.max(0, 1000 * (event.clientX - frame.left) / frame.width));
    const nearest = curves.map(({ points }) =>
      points.reduce((best, point) => Math.abs(point[0] - at) < Math.abs(best[0] - at) ? point : best));
    const x = nearest.reduce((best, [x]) => Math.abs(x - at) < Math.abs(best - at) ? x : best, Infinity);
    if (!Number.isFinite(x)) return hide();
    readout.replaceChildren(`step ${Math.round(x / 1000 * steps).toLocaleString()}`);
    curves.forEach(({ name, colour }, i) => {
      const line = document.createElement("div"), key = document.createElement("i");
      key.className = colour;
      line.append(key, `${name} ${shown(value(nearest[i][1]), unit)}`.trim());
      readout.append(line);
    });
    cursor.hidden = readout.hidden = false;
    cursor.style.left = `${x / 10}%`;
    const left = x < 500;
    readout.style.left = left ? `calc(${x / 10}% + 0.6rem)` : "auto";
    readout.style.right = left ? "auto" : `calc(${100 - x / 10}% + 0.6rem)`;
  });
}

if (document.body.dataset.state === "running") {
  setInterval(() => { if (!document.hidden) location.reload(); }, 60_000);
}
