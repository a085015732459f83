/* What the figures share: numbers as text, canvases with axes, sliders and buttons. */

const GREEK = { nu: "ν", sigma: "σ", beta: "β", rho: "ρ", lambda: "λ", kappa: "κ",
  epsilon: "ε", mu: "μ", alpha: "α", gamma: "γ" };
const power = (n) => `10${String(n).replace(/./g, (c) => "⁰¹²³⁴⁵⁶⁷⁸⁹⁻"["0123456789-".indexOf(c)])}`;

// Three figures; small numbers as 1.2·10⁻⁵.
function number(v) {
  if (v === 0 || Math.abs(v) >= 1e-3) return v.toPrecision(3);
  const n = Math.floor(Math.log10(Math.abs(v)));
  return `${(v / 10 ** n).toFixed(1)}·${power(n)}`;
}

// A number on an axis, without zeros at its end.
const tick = (v) => String(Number(v.toPrecision(3))).replace("-", "−");

// Round numbers between two others, five at most.
function round(a, b) {
  const size = 10 ** Math.floor(Math.log10((b - a) / 4));
  const step = [1, 2, 5, 10].find((c) => (b - a) / (c * size) <= 4.2) * size;
  const first = Math.ceil(a / step);
  return Array.from({ length: Math.floor(b / step) - first + 1 }, (_, i) => (first + i) * step);
}

const element = (tag, attributes = {}, parent = null) => {
  const made = Object.assign(document.createElement(tag), attributes);
  parent?.append(made);
  return made;
};

const colour = (root, name) => getComputedStyle(root).getPropertyValue(name).trim();
const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));

// Blue, ground, orange where a field has both signs; ground to blue where it has one.
function shades(root, low) {
  const [cold, ground, warm] = ["--hpx-cold", "--hpx-ground", "--hpx-warm"]
    .map((name) => rgb(colour(root, name)));
  return Array.from({ length: 256 }, (_, i) => {
    const s = low < 0 ? i / 127.5 - 1 : -i / 255;
    return ground.map((g, c) => g + (s < 0 ? cold[c] - g : warm[c] - g) * Math.abs(s) ** 0.8);
  });
}

// A canvas that is sharp on every screen, with axes and the curves in them.
class Plot {
  constructor(parent, label, ratio) {
    this.canvas = element("canvas", { className: "hpx-canvas" }, parent);
    this.canvas.setAttribute("role", "img");
    this.canvas.setAttribute("aria-label", label);
    this.canvas.style.aspectRatio = ratio;
    this.pen = this.canvas.getContext("2d");
  }

  clear(root) {
    const density = window.devicePixelRatio || 1;
    const { clientWidth: w, clientHeight: h } = this.canvas;
    if (this.canvas.width !== Math.round(w * density)
      || this.canvas.height !== Math.round(h * density)) {
      this.canvas.width = Math.round(w * density);
      this.canvas.height = Math.round(h * density);
    }
    Object.assign(this, { w, h, ink: colour(root, "--hpx-ink"),
      grid: colour(root, "--hpx-grid") });
    this.pen.setTransform(density, 0, 0, density, 0, 0);
    this.pen.clearRect(0, 0, w, h);
    this.pen.font = `13px ${getComputedStyle(root).fontFamily}`;
    this.pen.lineJoin = "round";
  }

  // The frame [left, top, right, bottom] in pixels for given ranges of x and y.
  axes([x0, x1], [y0, y1], { x, y, xs, ys, place }) {
    const [left, top, right, bottom] = place;
    const { pen } = this;
    this.px = (v) => left + (v - x0) / (x1 - x0) * (right - left);
    this.py = (v) => bottom - (v - y0) / (y1 - y0) * (bottom - top);
    pen.fillStyle = this.ink;
    pen.strokeStyle = this.grid;
    pen.lineWidth = 1;
    pen.textAlign = "center";
    pen.textBaseline = "top";
    for (const v of xs) {
      this.segment(this.px(v), top, this.px(v), bottom);
      pen.fillText(tick(v), this.px(v), bottom + 5);
    }
    if (x) pen.fillText(x, (left + right) / 2, bottom + 19);
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    for (const [v, text] of ys) {
      this.segment(left, this.py(v), right, this.py(v));
      pen.fillText(text, left - 5, this.py(v));
    }
    if (y) {
      pen.textAlign = "left";
      pen.textBaseline = "bottom";
      pen.fillText(y, left, top - 4);
    }
  }

  segment(x0, y0, x1, y1) {
    this.pen.beginPath();
    this.pen.moveTo(x0, y0);
    this.pen.lineTo(x1, y1);
    this.pen.stroke();
  }

  // The points of `ys`; `xs` may go on beyond them.
  line(xs, ys, style, width) {
    const { pen } = this;
    pen.strokeStyle = style;
    pen.lineWidth = width;
    pen.beginPath();
    for (let i = 0; i < ys.length; i++) pen.lineTo(this.px(xs[i]), this.py(ys[i]));
    pen.stroke();
  }
}

// What all figures share: a slider for each free parameter, buttons, a line of text.
function frame(root, model, start) {
  const body = element("div");
  const controls = element("div", { className: "hpx-controls" }, body);
  const names = Object.keys(model.parameters);
  const sliders = names.flatMap((name, i) => {
    const range = model.ranges[i];
    if (range[0] === range[1]) return [];
    const label = element("label", {}, controls);
    element("span", { textContent: GREEK[name] ?? name }, label);
    const input = element("input", { type: "range", min: -1, max: 1, step: 0.005,
      value: scale(range, start[i]) }, label);
    input.setAttribute("aria-label", `${GREEK[name] ?? name} (${name})`);
    const show = element("output", {}, label);
    return [{ input, show, range, i }];
  });
  const panels = element("div", { className: "hpx-panels" }, body);
  const status = element("p", { className: "hpx-status" }, body);
  const lam = () => {
    const values = model.ranges.map(([low, high]) => (low + high) / 2);
    for (const { input, show, range, i } of sliders) {
      values[i] = unscale(range, Number(input.value));
      show.textContent = number(values[i]);
      input.setAttribute("aria-valuetext", number(values[i]));
    }
    return values;
  };
  const button = (text, act) =>
    element("button", { type: "button", textContent: text, onclick: act }, controls);
  root.replaceChildren(body);
  return { controls, panels, status, sliders, lam, button };
}

// A button that moves a slider through its range and back, until it is stopped.
function player(button, input, update) {
  let playing = 0;
  const play = button("Play", () => {
    cancelAnimationFrame(playing);
    if (playing) { playing = 0; play.textContent = "Play"; return; }
    play.textContent = "Stop";
    const begin = performance.now(), from = Math.acos(Number(input.value));
    const step = (now) => {
      input.value = Math.cos(from + (now - begin) / 1500);
      update(true);
      playing = requestAnimationFrame(step);
    };
    playing = requestAnimationFrame(step);
  });
}

// Where there are several fields, a list of them; `change` gets the chosen one's place.
function chooser(controls, names, chosen, change) {
  if (names.length < 2) return;
  const label = element("label", { className: "hpx-check", textContent: "field " }, controls);
  const list = element("select", { oninput: () => change(list.selectedIndex) }, label);
  names.forEach((name) => element("option", { textContent: name }, list));
  list.selectedIndex = chosen;
}
