"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const $ = id => document.getElementById(id);
const canvas = $("canvas"), context = canvas.getContext("2d");
const PALETTE = ["#c1272d", "#1f5f99", "#2e7d32", "#8e5ba6", "#e08a1e", "#00838f", "#795548", "#d81b7f", "#607d8b", "#9e9d24"];
const OTHER = "#9994", MISSING = "#8885", RADIUS = 4, SHOWN_NAMES = 1000;
let view = {x: 0, y: 0, scale: 1}, chosen = -1, hovered = -1, colours = [];

function fit() {
  const box = canvas.getBoundingClientRect(), ratio = window.devicePixelRatio || 1;
  canvas.width = box.width * ratio; canvas.height = box.height * ratio;
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  draw();
}
// The map's coordinates lie in [-1, 1]; the shorter side of the canvas shows them all at scale 1.
function onScreen(i) {
  const box = canvas.getBoundingClientRect(), half = Math.min(box.width, box.height) / 2 * 0.94 * view.scale;
  return [box.width / 2 + (data.x[i] - view.x) * half, box.height / 2 - (data.y[i] - view.y) * half];
}
function draw() {
  const box = canvas.getBoundingClientRect();
  context.clearRect(0, 0, box.width, box.height);
  for (let i = 0; i < data.x.length; i++) {
    const [x, y] = onScreen(i);
    if (x < -9 || y < -9 || x > box.width + 9 || y > box.height + 9) continue;
    context.fillStyle = colours[i];
    context.beginPath(); context.arc(x, y, RADIUS, 0, 7); context.fill();
  }
  if (chosen >= 0) data.neighbours[chosen].forEach(i => ring(i, 1.5, "#888"));
  if (hovered >= 0) ring(hovered, 2, "#888");
  if (chosen >= 0) ring(chosen, 3, getComputedStyle(document.body).color);
}
function ring(i, width, colour) {
  const [x, y] = onScreen(i);
  context.strokeStyle = colour; context.lineWidth = width;
  context.beginPath(); context.arc(x, y, RADIUS + 4, 0, 7); context.stroke();
}
function colourBy(name) {
  const values = name ? data.labels[name] : data.x.map(() => "");
  const count = new Map();
  values.forEach(value => value !== "" && count.set(value, (count.get(value) || 0) + 1));
  const known = [...count.keys()].sort((a, b) => a.localeCompare(b, undefined, {numeric: true}));
  const most = known.length > PALETTE.length ? [...known].sort((a, b) => count.get(b) - count.get(a)).slice(0, PALETTE.length) : known;
  const shown = new Map(most.map((value, k) => [value, PALETTE[k]]));
  colours = values.map(value => !name ? PALETTE[1] : value === "" ? MISSING : shown.get(value) || OTHER);
  const legend = $("legend"); legend.replaceChildren();
  const add = (text, colour) => {
    const item = document.createElement("li"), key = document.createElement("span");
    key.className = "key"; key.style.background = colour; item.append(key, text); legend.append(item);
  };
  shown.forEach((colour, value) => add(`${value} (${count.get(value)})`, colour));
  if (name && known.length > most.length) add(`${known.length - most.length} other values`, OTHER);
  const empty = name ? values.filter(value => value === "").length : 0;
  if (empty) add(`no value (${empty})`, MISSING);
  draw();
}
function link(i, text) {
  const item = document.createElement("li"), button = document.createElement("button");
  button.textContent = text; button.onclick = () => choose(i, true); item.append(button);
  return item;
}
function choose(i, move) {
  chosen = i;
  $("name").textContent = data.names[i];
  const labels = Object.entries(data.labels).map(([name, values]) => `${name}: ${values[i] === "" ? "no value" : values[i]}`);
  $("facts").textContent = [...labels, `less like any other than ${Math.round(100 * data.rank[i])} % of the films`].join(" · ");
  const image = $("image");
  image.hidden = !data.thumbnails[i];
  if (data.thumbnails[i]) { image.src = data.thumbnails[i]; image.alt = data.names[i]; }
  $("near").hidden = false;
  $("neighbours").replaceChildren(...data.neighbours[i].map((j, k) => link(j, `${data.names[j]} (cosine ${data.cosines[i][k].toFixed(2)})`)));
  if (move) {
    const box = canvas.getBoundingClientRect(), [x, y] = onScreen(i);
    if (x < 0 || y < 0 || x > box.width || y > box.height) { view.x = data.x[i]; view.y = data.y[i]; }
  }
  draw();
}
function nearestTo(x, y) {
  let best = -1, least = 15 ** 2;
  for (let i = 0; i < data.x.length; i++) {
    const [px, py] = onScreen(i), far = (px - x) ** 2 + (py - y) ** 2;
    if (far < least) { least = far; best = i; }
  }
  return best;
}
function zoom(factor, x, y) {
  const box = canvas.getBoundingClientRect(), half = Math.min(box.width, box.height) / 2 * 0.94;
  const scale = Math.min(200, Math.max(0.5, view.scale * factor)), move = 1 / (half * view.scale) - 1 / (half * scale);
  view = {x: view.x + (x - box.width / 2) * move, y: view.y - (y - box.height / 2) * move, scale};
  draw();
}
function all() { view = {x: 0, y: 0, scale: 1}; draw(); }
function step(dx, dy) {
  if (chosen < 0) return choose(0, true);
  let best = -1, least = Infinity;
  for (let i = 0; i < data.x.length; i++) {
    const ax = data.x[i] - data.x[chosen], ay = data.y[i] - data.y[chosen];
    const along = ax * dx + ay * dy, across = Math.abs(ax * dy) + Math.abs(ay * dx), far = along + 2 * across;
    if (i !== chosen && along > 0 && far < least) { least = far; best = i; }
  }
  if (best >= 0) choose(best, true);
}
let drag = null;
canvas.addEventListener("pointerdown", event => { drag = {x: event.offsetX, y: event.offsetY, moved: false, view: {...view}}; canvas.setPointerCapture(event.pointerId); });
canvas.addEventListener("pointermove", event => {
  const {offsetX: x, offsetY: y} = event;
  if (drag) {
    if (Math.hypot(x - drag.x, y - drag.y) > 4) drag.moved = true;
    const box = canvas.getBoundingClientRect(), half = Math.min(box.width, box.height) / 2 * 0.94 * view.scale;
    if (drag.moved) { view.x = drag.view.x - (x - drag.x) / half; view.y = drag.view.y + (y - drag.y) / half; }
  }
  hovered = drag && drag.moved ? -1 : nearestTo(x, y);
  const tip = $("tip"); tip.hidden = hovered < 0;
  if (hovered >= 0) {
    tip.textContent = data.names[hovered];
    tip.style.left = `${Math.min(x + 12, canvas.clientWidth - tip.offsetWidth - 4)}px`;
    tip.style.top = `${Math.max(0, y - 34)}px`;
  }
  draw();
});
canvas.addEventListener("pointerup", event => {
  const hit = nearestTo(event.offsetX, event.offsetY);
  if (drag && !drag.moved && hit >= 0) choose(hit, false);
  drag = null;
});
canvas.addEventListener("pointerleave", () => { hovered = -1; $("tip").hidden = true; draw(); });
canvas.addEventListener("wheel", event => { event.preventDefault(); zoom(Math.exp(-event.deltaY / 400), event.offsetX, event.offsetY); }, {passive: false});
canvas.addEventListener("keydown", event => {
  const steps = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1]};
  const [x, y] = chosen >= 0 ? onScreen(chosen) : [canvas.clientWidth / 2, canvas.clientHeight / 2];
  if (steps[event.key]) step(...steps[event.key]);
  else if (event.key === "+" || event.key === "=") zoom(1.3, x, y);
  else if (event.key === "-") zoom(1 / 1.3, x, y);
  else if (event.key === "Home") all();
  else return;
  event.preventDefault();
});
$("find").addEventListener("input", event => {
  const text = event.target.value.toLowerCase();
  const hit = text ? data.names.findIndex(name => name.toLowerCase().includes(text)) : -1;
  if (hit >= 0) choose(hit, true);
});
$("count").textContent = data.names.length.toLocaleString("en");
$("about").textContent = data.about;
$("colour").append(new Option("none", ""), ...Object.keys(data.labels).map(name => new Option(name, name)));
$("colour").onchange = event => colourBy(event.target.value);
$("names").append(...data.names.slice(0, SHOWN_NAMES).map(name => new Option(name)));
$("outliers").append(...data.outliers.map(i => link(i, data.names[i])));
const few = name => new Set(data.labels[name].filter(value => value !== "")).size <= PALETTE.length;
const first = Object.keys(data.labels).find(few) || "";
$("colour").value = first;
colourBy(first);
new ResizeObserver(fit).observe(canvas);
