// The page of jdm-review: shows one pair at a time and sends the reader's decisions.
"use strict";

// Okabe and Ito's, which the colour-blind tell apart, and two more.
const COLOURS = ["#e69f00", "#56b4e9", "#009e73", "#f0e442", "#cc79a7", "#d55e00", "#7fa8ff", "#b8e986"];
const HELP = {
  review: "a accept · r reject · f fix · c comment · u undo · ← → pairs · m mask · o outline · z + − zoom",
  blind: "1 real · 2 synthetic · c comment · u undo · ← → images · m mask · o outline · z + − zoom",
  fix: "0–9 class · e erase · [ ] size · arrows move (shift: faster) · space paint · u undo · Enter save · Esc leave",
};
const $ = (id) => document.getElementById(id);

let state,
  pair,
  planes,
  number = 0,
  slice = 0,
  channel = 0,
  zoom = 1,
  fitted = true,
  busy = false,
  since = 0;
let showMask = true,
  outline = true,
  opacity = 0.75,
  low = 0,
  high = 1,
  draft = null,
  reference = null;
let fix = null; // while the brush is out: {planes, strokes, value, x, y}
const cache = new Map();

// ---- talking to the server

async function ask(path, body) {
  const options =
    body === undefined
      ? {}
      : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error(
      "jdm-review does not answer. What is marked as decided is saved. Start it again and open the new address.",
    );
  }
  if (answer.status === 403) throw new Error("This page has expired. Open the address that jdm-review printed last.");
  if (!answer.ok) {
    const text = await answer.text();
    let line = text;
    try {
      line = JSON.parse(text).error;
    } catch {
      /* not JSON: the text itself */
    }
    throw new Error(line);
  }
  return answer;
}

function loaded(n) {
  if (!cache.has(n)) {
    const found = ask(`pair/${n}`)
      .then((a) => a.json())
      .then((meta) => ({ meta, planes: new Map() }));
    found.catch(() => cache.delete(n));
    cache.set(n, found);
    for (const old of cache.keys()) {
      if (cache.size <= 5) break;
      if (old !== n && old !== number) cache.delete(old);
    }
  }
  return cache.get(n);
}

function plane(n, entry, index) {
  if (!entry.planes.has(index)) {
    const { channels, height, width, colours } = entry.meta;
    const found = ask(`plane/${n}/${index}`)
      .then((a) => a.arrayBuffer())
      .then((content) => {
        const size = height * width;
        const Kind = colours ? Uint8Array : Uint16Array;
        return { label: new Uint16Array(content, 0, size), image: new Kind(content, 2 * size, channels * size) };
      });
    found.catch(() => entry.planes.delete(index));
    entry.planes.set(index, found);
  }
  return entry.planes.get(index);
}

// ---- showing

async function show(n) {
  const entry = await loaded(n);
  const first = entry.meta.first;
  const now = await plane(n, entry, first);
  const same = pair && pair.width === entry.meta.width && pair.height === entry.meta.height;
  number = n;
  pair = entry.meta;
  planes = { entry, now, slice: first };
  slice = first;
  draft = null;
  since = performance.now();
  if (!fitted && !same) fitted = true;
  controls();
  describe();
  if (fitted) fit();
  draw();
  document.body.dataset.number = String(n);
  if (n + 1 < state.total)
    loaded(n + 1)
      .then((e) => plane(n + 1, e, e.meta.first))
      .catch(() => {});
}

async function showSlice(index) {
  const wanted = Math.max(0, Math.min(pair.slices - 1, index));
  if (wanted === slice) return;
  slice = wanted;
  $("slice").value = String(slice);
  $("slice-is").textContent = `${slice + 1} / ${pair.slices}`;
  const { entry } = planes,
    n = number;
  const now = await plane(n, entry, wanted);
  if (slice !== wanted || number !== n) return; // the reader has gone on
  planes.now = now;
  planes.slice = wanted;
  draw();
  for (const near of [wanted + 1, wanted - 1])
    if (near >= 0 && near < pair.slices) plane(n, entry, near).catch(() => {});
}

function controls() {
  const grey = !pair.colours;
  channel = Math.min(channel, pair.channels - 1);
  $("slice-row").hidden = pair.slices < 2;
  $("slice").max = String(pair.slices - 1);
  $("slice").value = String(slice);
  $("slice-is").textContent = `${slice + 1} / ${pair.slices}`;
  $("channel-row").hidden = !grey || pair.channels < 2;
  $("level-row").hidden = $("window-row").hidden = !grey;
  if (grey) firstWindow();
}

function firstWindow() {
  [low, high] = pair.windows[channel];
  const [offset] = pair.values[channel];
  const span = (high - low) * 3;
  $("level").min = String(Math.min(offset, low));
  $("level").max = String(high + (high - low));
  $("window").min = String((high - low) / 100);
  $("window").max = String(span);
  showWindow();
}

function showWindow() {
  const digits = high - low < 10 ? 2 : 0;
  $("level").value = String((low + high) / 2);
  $("window").value = String(high - low);
  $("level-is").textContent = ((low + high) / 2).toFixed(digits);
  $("window-is").textContent = (high - low).toFixed(digits);
}

function setWindow(level, width) {
  const least = Number($("window").min);
  low = level - Math.max(width, least) / 2;
  high = level + Math.max(width, least) / 2;
  showWindow();
  draw();
}

// Enlarged by whole numbers, so that every pixel is a square of the same size; a larger image is reduced to fit.
function fit() {
  const stage = $("stage"),
    most = Math.min(stage.clientWidth / pair.width, stage.clientHeight / pair.height);
  zoom = most >= 1 ? Math.min(Math.floor(most), mostZoom()) : Math.max(most, 1 / 64);
}

function mostZoom() {
  return Math.max(1, Math.floor(8192 / Math.max(pair.width, pair.height)));
}

function setZoom(step) {
  fitted = step === 0 && !fitted;
  if (fitted) fit();
  else if (step === 0) zoom = 1;
  else if (step > 0) zoom = zoom >= 1 ? Math.min(zoom + 1, mostZoom()) : Math.min(1, zoom * 1.5);
  else zoom = zoom > 1 ? zoom - 1 : Math.max(zoom / 1.5, 1 / 64);
  draw();
}

function colourOf(value) {
  return COLOURS[(value - 1) % COLOURS.length];
}
function rgb(text) {
  return [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16));
}
// planes.slice is the slice on screen; `slice` may still be on its way.
function labelNow() {
  return fix && fix.planes.has(planes.slice) ? fix.planes.get(planes.slice) : planes.now.label;
}

const base = document.createElement("canvas"),
  cover = document.createElement("canvas");

function paintBase() {
  const { width, height, colours } = pair,
    { image } = planes.now,
    size = width * height;
  base.width = width;
  base.height = height;
  const picture = new ImageData(width, height),
    out = picture.data;
  if (colours) {
    for (let i = 0, o = 0; i < size; i += 1, o += 4) {
      out[o] = image[i];
      out[o + 1] = image[size + i];
      out[o + 2] = image[2 * size + i];
      out[o + 3] = 255;
    }
  } else {
    const [offset, scale] = pair.values[channel],
      start = channel * size,
      gain = 255 / (high - low);
    for (let i = 0, o = 0; i < size; i += 1, o += 4) {
      const grey = (offset + scale * image[start + i] - low) * gain;
      out[o] = out[o + 1] = out[o + 2] = grey;
      out[o + 3] = 255; // clamped by the array
    }
  }
  base.getContext("2d").putImageData(picture, 0, 0);
}

function paintFilled(label) {
  const { width, height } = pair;
  cover.width = width;
  cover.height = height;
  const picture = new ImageData(width, height),
    out = picture.data;
  const table = state.labels.map((_, value) => (value ? rgb(colourOf(value)) : null));
  for (let i = 0, o = 0; i < label.length; i += 1, o += 4) {
    const colour = table[label[i]];
    if (colour) {
      out[o] = colour[0];
      out[o + 1] = colour[1];
      out[o + 2] = colour[2];
      out[o + 3] = 255;
    }
  }
  cover.getContext("2d").putImageData(picture, 0, 0);
}

// Lines on the edges of pixels, inside each region, so that a region of one pixel is seen too.
function outlines(label, scale) {
  const { width, height } = pair,
    paths = new Map();
  for (let y = 0, i = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1, i += 1) {
      const value = label[i];
      if (!value) continue;
      if (!paths.has(value)) paths.set(value, new Path2D());
      const path = paths.get(value),
        l = x * scale,
        t = y * scale,
        r = l + scale,
        b = t + scale;
      if (x === 0 || label[i - 1] !== value) {
        path.moveTo(l, t);
        path.lineTo(l, b);
      }
      if (x === width - 1 || label[i + 1] !== value) {
        path.moveTo(r, t);
        path.lineTo(r, b);
      }
      if (y === 0 || label[i - width] !== value) {
        path.moveTo(l, t);
        path.lineTo(r, t);
      }
      if (y === height - 1 || label[i + width] !== value) {
        path.moveTo(l, b);
        path.lineTo(r, b);
      }
    }
  }
  return paths;
}

// Beside an enlarged image, the image as it is; a large one is seen at 1x by pressing z.
function paintNative() {
  const small = $("native");
  $("native-row").hidden = zoom <= 1 || pair.width > 270;
  small.width = pair.width;
  small.height = pair.height;
  small.getContext("2d").drawImage(base, 0, 0);
}

function draw() {
  if (!pair) return;
  const canvas = $("canvas"),
    scale = Math.max(1, zoom),
    { width, height } = pair;
  canvas.width = width * scale;
  canvas.height = height * scale;
  canvas.style.width = `${width * zoom}px`;
  canvas.style.height = `${height * zoom}px`;
  canvas.style.imageRendering = zoom < 1 ? "auto" : "pixelated";
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  paintBase();
  context.drawImage(base, 0, 0, canvas.width, canvas.height);
  paintNative();
  if (showMask && state.masks) {
    const label = labelNow();
    context.globalAlpha = opacity;
    if (outline) {
      context.lineWidth = Math.max(2.5, 1.5 / zoom);
      for (const [value, path] of outlines(label, scale)) {
        context.strokeStyle = colourOf(value);
        context.stroke(path);
      }
    } else {
      paintFilled(label);
      context.drawImage(cover, 0, 0, canvas.width, canvas.height);
    }
    context.globalAlpha = 1;
  }
  if (fix) {
    context.strokeStyle = "#fff";
    context.lineWidth = Math.max(1, 1 / zoom);
    context.beginPath();
    context.arc((fix.x + 0.5) * scale, (fix.y + 0.5) * scale, Math.max(0.5, brushSize() / 2) * scale, 0, 7);
    context.stroke();
  }
  $("zoom").firstChild.textContent = zoom >= 1 ? `Zoom ${zoom}× ` : `Zoom ${Math.round(100 * zoom)} % `;
}

function describe(extra = "") {
  const decided = reference === null ? state.decisions[number] : "",
    left = state.decisions.filter((d) => !d).length;
  const name = reference !== null ? "a real case, to compare" : state.names[number] || `image ${number + 1}`;
  for (const button of $("decisions").children) button.disabled = reference !== null;
  const words = { accept: "accepted", reject: "rejected", fix: "fixed", real: "real", synthetic: "synthetic" };
  $("title").textContent = pair.class ? `${name} · ${pair.class}` : name;
  $("mark").hidden = !decided;
  $("mark").textContent = words[decided] || "";
  $("mark").dataset.is = decided;
  $("stage").setAttribute("aria-label", `${$("title").textContent}, image${state.masks ? " with mask" : ""}`);
  $("count").textContent = reference !== null ? "" : `${number + 1} / ${state.total}`;
  $("progress").max = state.total;
  $("progress").value = state.total - left;
  const place =
    reference !== null
      ? "A real case, to compare; v goes back."
      : `Pair ${number + 1} of ${state.total}: ${words[decided] || "not decided"}.`;
  const rest = left ? `${left} left.` : "All are decided.";
  const said = pair.comment ? `Comment: ${pair.comment}` : "";
  $("status").textContent = [extra, place, rest, said].filter(Boolean).join(" ");
  $("help").textContent =
    (fix ? HELP.fix : state.blind ? HELP.blind : HELP.review) +
    (pair.slices > 1 ? (fix ? " · PageUp PageDown slices" : " · wheel ↑ ↓ slices") : "") +
    (pair.colours || fix ? "" : " · drag: window and level") +
    (state.references && !fix ? " · v a real case" : "");
}

// ---- deciding

// One thing at a time: keys pressed meanwhile are dropped, so that none decides about a pair not seen yet.
async function alone(act) {
  if (busy) return;
  busy = true;
  $("alert").textContent = "";
  try {
    await act();
  } catch (error) {
    $("alert").textContent = error.message;
  } finally {
    busy = false;
  }
}

async function decide(decision, corrected = {}) {
  const seconds = (performance.now() - since) / 1000;
  const answer = await ask("decide", { number, decision, comment: draft, seconds, planes: corrected });
  const after = await answer.json();
  state.decisions[after.number] = after.decision;
  state.lines = after.lines;
  if (decision === "fix" || draft !== null) cache.delete(after.number);
  if (decision === "fix") leave();
  if (decision === "") {
    pair.comment = draft;
    draft = null;
    describe("Comment saved.");
    return;
  }
  if (after.next === null) {
    await show(number);
    describe("Saved.");
  } else await show(after.next);
}

async function undo() {
  if (!state.lines) throw new Error("Nothing is decided yet.");
  const after = await (await ask("undo", {})).json();
  state.decisions[after.number] = after.decision;
  state.lines = after.lines;
  cache.delete(after.number);
  await show(after.next);
  describe("Taken back.");
}

async function toggleReference() {
  if (reference === null) {
    const back = number;
    await show(state.total + Math.floor(Math.random() * state.references));
    reference = back;
    describe();
  } else {
    const back = reference;
    reference = null;
    await show(back);
  }
}

// ---- the brush

function brushSize() {
  return Number($("size").value);
}

function startFix() {
  if (!state.masks) throw new Error("These images have no masks to fix. Accept or reject.");
  fix = {
    planes: new Map(),
    strokes: [],
    value: Math.min(1, state.labels.length - 1),
    x: pair.width >> 1,
    y: pair.height >> 1,
    last: null,
  };
  showMask = true;
  $("mask").setAttribute("aria-pressed", "true");
  document.body.classList.add("fixing");
  $("brush").hidden = false;
  $("decisions").hidden = true;
  $("moves").hidden = true;
  choose(fix.value);
  draw();
  describe("Brush.");
  $("stage").focus();
}

function leave() {
  fix = null;
  document.body.classList.remove("fixing");
  $("brush").hidden = true;
  $("decisions").hidden = false;
  $("moves").hidden = false;
}

function choose(value) {
  if (value >= state.labels.length) return;
  fix.value = value;
  for (const button of $("classes").children)
    button.setAttribute("aria-pressed", String(Number(button.dataset.value) === value));
}

function beginStroke() {
  if (!fix.planes.has(planes.slice)) fix.planes.set(planes.slice, planes.now.label.slice());
  fix.strokes.push([planes.slice, fix.planes.get(planes.slice).slice()]);
}

function dab(x, y) {
  const label = labelNow(),
    radius = Math.max(0.5, brushSize() / 2),
    { width, height } = pair;
  for (let j = Math.max(0, Math.ceil(y - radius)); j <= Math.min(height - 1, y + radius); j += 1) {
    for (let i = Math.max(0, Math.ceil(x - radius)); i <= Math.min(width - 1, x + radius); i += 1) {
      if ((i - x) ** 2 + (j - y) ** 2 <= radius ** 2) label[j * width + i] = fix.value;
    }
  }
}

function line(x, y) {
  const from = fix.last || [x, y],
    steps = Math.max(Math.abs(x - from[0]), Math.abs(y - from[1]), 1);
  for (let k = 0; k <= steps; k += 1)
    dab(Math.round(from[0] + ((x - from[0]) * k) / steps), Math.round(from[1] + ((y - from[1]) * k) / steps));
  fix.last = [x, y];
}

function undoStroke() {
  // of the slice it was painted on, which is shown again
  const last = fix.strokes.pop();
  if (last) {
    fix.planes.set(last[0], last[1]);
    draw();
    showSlice(last[0]);
  }
}

async function save() {
  const corrected = {};
  for (const [index, label] of fix.planes) {
    const before = (await plane(number, planes.entry, index)).label;
    if (label.every((value, at) => value === before[at])) continue;
    const bytes = new Uint8Array(label.buffer, label.byteOffset, label.byteLength),
      parts = [];
    for (let at = 0; at < bytes.length; at += 32768) parts.push(String.fromCharCode(...bytes.subarray(at, at + 32768)));
    corrected[index] = btoa(parts.join(""));
  }
  if (!Object.keys(corrected).length) throw new Error("The mask is unchanged. Paint, or press Escape.");
  await decide("fix", corrected);
}

// ---- keys, buttons, pointer

const ACTS = {
  accept: () => !fix && reference === null && decide("accept"),
  reject: () => !fix && reference === null && decide("reject"),
  real: () => decide("real"),
  synthetic: () => decide("synthetic"),
  fix: () => reference === null && startFix(),
  save: () => fix && save(),
  cancel: () => {
    leave();
    draw();
    describe("Left without saving.");
  },
  undo: () => (fix ? undoStroke() : reference === null && undo()),
  next: () => reference === null && number + 1 < state.total && show(number + 1),
  previous: () => reference === null && number > 0 && show(number - 1),
  reference: () => state.references && !fix && toggleReference(),
  comment: () => {
    if (reference === null) {
      $("remark").hidden = false;
      $("text").value = draft ?? pair.comment;
      $("text").focus();
    }
  },
  mask: () => {
    showMask = !showMask;
    $("mask").setAttribute("aria-pressed", String(showMask));
    draw();
  },
  outline: () => {
    outline = !outline;
    $("outline").setAttribute("aria-pressed", String(outline));
    draw();
  },
  zoom: () => setZoom(0),
};
const KEYS = {
  a: "accept",
  r: "reject",
  f: "fix",
  c: "comment",
  u: "undo",
  v: "reference",
  m: "mask",
  o: "outline",
  z: "zoom",
  ArrowLeft: "previous",
  ArrowRight: "next",
};
const BLIND_KEYS = { ...KEYS, 1: "real", 2: "synthetic", a: undefined, r: undefined, f: undefined, v: undefined };
const REPEATED = new Set(["next", "previous"]);

function fixKey(event) {
  const step = event.shiftKey ? 10 : 1,
    move = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key];
  if (move) {
    fix.x = Math.max(0, Math.min(pair.width - 1, fix.x + move[0]));
    fix.y = Math.max(0, Math.min(pair.height - 1, fix.y + move[1]));
    draw();
  } else if (event.key === " ") {
    beginStroke();
    dab(fix.x, fix.y);
    draw();
  } else if (/^[0-9]$/.test(event.key)) choose(Number(event.key));
  else if (event.key === "e") choose(0);
  else if (event.key === "[" || event.key === "]") {
    $("size").value = String(brushSize() + (event.key === "]" ? 1 : -1));
    sizes();
  } else if (event.key === "u") undoStroke();
  else if (event.key === "Enter") alone(save);
  else if (event.key === "Escape") ACTS.cancel();
  else return false;
  return true;
}

function sizes() {
  $("size-is").textContent = `${brushSize()} px`;
  if (fix) draw();
}

function viewKey(event) {
  if (event.key === "PageUp" || event.key === "PageDown") showSlice(slice + (event.key === "PageUp" ? 1 : -1));
  else if (!fix && (event.key === "ArrowUp" || event.key === "ArrowDown") && pair.slices > 1)
    showSlice(slice + (event.key === "ArrowUp" ? 1 : -1));
  else if (event.key === "+" || event.key === "=") setZoom(1);
  else if (event.key === "-") setZoom(-1);
  else return false;
  return true;
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || !pair) return;
  const at = event.target,
    typing = at.matches("#text"),
    sliding = at.matches("input, select"),
    button = at.matches("button");
  if (typing || (sliding && /^(Arrow|Page|Home|End)/.test(event.key))) return;
  if (button && (event.key === " " || event.key === "Enter")) return;
  if (viewKey(event)) {
    event.preventDefault();
    return;
  }
  if (fix && !busy && fixKey(event)) {
    event.preventDefault();
    return;
  }
  const act = (state.blind ? BLIND_KEYS : KEYS)[event.key];
  if (!act || (fix && !["mask", "outline", "zoom"].includes(act)) || (event.repeat && !REPEATED.has(act))) return;
  event.preventDefault();
  alone(ACTS[act]);
}

function where(event) {
  const box = $("canvas").getBoundingClientRect();
  return [Math.floor((event.clientX - box.left) / zoom), Math.floor((event.clientY - box.top) / zoom)];
}

function listen() {
  const canvas = $("canvas"),
    stage = $("stage");
  let drag = null;
  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || busy) return;
    if (fix) {
      [fix.x, fix.y] = where(event);
      fix.last = null;
      beginStroke();
      line(fix.x, fix.y);
      draw();
    } else if (pair.colours || event.pointerType === "touch") return;
    drag = [event.clientX, event.clientY, (low + high) / 2, high - low];
    canvas.setPointerCapture(event.pointerId);
    event.preventDefault();
  });
  canvas.addEventListener("pointermove", (event) => {
    if (fix) {
      [fix.x, fix.y] = where(event);
      if (drag) line(fix.x, fix.y);
      draw();
    } else if (drag) {
      const unit = drag[3] / 300;
      setWindow(drag[2] + (event.clientY - drag[1]) * unit, drag[3] + (event.clientX - drag[0]) * unit);
    }
  });
  for (const end of ["pointerup", "pointercancel"])
    canvas.addEventListener(end, () => {
      drag = null;
      if (fix) fix.last = null;
    });
  stage.addEventListener(
    "wheel",
    (event) => {
      if (!pair || pair.slices < 2 || event.ctrlKey) return;
      event.preventDefault();
      showSlice(slice + (event.deltaY < 0 ? 1 : -1));
    },
    { passive: false },
  );
  document.addEventListener("keydown", pressed);
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button || !pair) return;
    if (button.dataset.value !== undefined) choose(Number(button.dataset.value));
    else alone(ACTS[button.dataset.do]);
  });
  $("remark").addEventListener("submit", (event) => {
    event.preventDefault();
    remark();
  });
  $("text").addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      $("remark").hidden = true;
      stage.focus();
    }
  });
  $("opacity").addEventListener("input", () => {
    opacity = Number($("opacity").value) / 100;
    $("opacity-is").textContent = `${$("opacity").value} %`;
    draw();
  });
  for (const name of ["level", "window"])
    $(name).addEventListener("input", () => setWindow(Number($("level").value), Number($("window").value)));
  $("slice").addEventListener("input", () => showSlice(Number($("slice").value)));
  $("channel").addEventListener("change", () => {
    channel = Number($("channel").value);
    firstWindow();
    draw();
  });
  $("size").addEventListener("input", sizes);
  new ResizeObserver(() => {
    if (pair && fitted) fit();
    draw();
  }).observe(stage, { box: "border-box" }); // lines of text take room too
}

function remark() {
  $("remark").hidden = true;
  $("stage").focus();
  const text = $("text").value.trim();
  if (text !== pair.comment)
    alone(async () => {
      draft = text;
      await decide("");
    });
}

async function start() {
  state = await (await ask("state")).json();
  history.replaceState(null, "", "/"); // the token is used up
  document.title = `jdm-review ${state.blind ? "" : state.dataset}`;
  $("decisions").hidden = state.blind;
  $("answers").hidden = !state.blind;
  $("reference").hidden = !state.references;
  for (const id of ["opacity-row", "mask", "outline"]) $(id).hidden = !state.masks;
  document.querySelector('[data-do="fix"]').hidden = !state.masks;
  state.channels.forEach((name, index) => $("channel").add(new Option(name, String(index))));
  state.labels.forEach((name, value) => {
    if (value) {
      const item = document.createElement("span"),
        swatch = document.createElement("span");
      swatch.className = "swatch";
      swatch.style.background = colourOf(value);
      item.append(swatch, name);
      $("legend").append(item);
    }
    const button = document.createElement("button"),
      key = document.createElement("kbd");
    button.type = "button";
    button.dataset.value = String(value);
    key.textContent = String(value);
    button.append(value ? `${name} ` : "erase ", key);
    $("classes").append(button);
  });
  $("opacity-is").textContent = "75 %";
  sizes();
  listen();
  await show(state.next ?? 0);
  $("stage").focus();
}

alone(start);
