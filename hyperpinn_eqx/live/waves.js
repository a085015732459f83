/* A family over (t, x): a heat map of one field, and curves at four times with their error. */

function waves(root, model, data) {
  const { controls, panels, status, sliders, lam, button } = frame(root, model, data.start);
  const map = new Plot(panels, data.labels[0], "1 / 0.82");
  const curves = new Plot(panels, data.labels[1], "1 / 0.82");
  const [[t0, t1], [x0, x1]] = model.box, names = Object.keys(model.inputs);
  const truth = data.equation === "burgers" && burgers;
  let overlay = null;
  if (truth) {
    const label = element("label", { className: "hpx-check" }, controls);
    overlay = element("input", { type: "checkbox", checked: true, oninput: () => update(true) }, label);
    label.append(" exact");
  }
  let field = 0;
  chooser(controls, data.fields, field, (chosen) => {
    field = chosen;
    [low, high] = data.ranges[field];
    theme();
    update(true);
  });
  // An odd solution needs to be computed on one half only.
  const odd = model.odd === 1, nt = 97, nx = odd ? 81 : 121, nc = odd ? 101 : 201;
  const linspace = (a, b, n) => Float64Array.from({ length: n }, (_, i) => a + (b - a) * i / (n - 1));
  const product = (ts, xs) => [Float64Array.from({ length: ts.length * xs.length },
    (_, i) => ts[Math.floor(i / xs.length)]),
  Float64Array.from({ length: ts.length * xs.length }, (_, i) => xs[i % xs.length])];
  const grid = product(linspace(t0, t1, nt), linspace(odd ? 0 : x0, x1, nx));
  const times = [0.25, 0.5, 0.75, 1].map((s) => t0 + s * (t1 - t0));
  const half = linspace(odd ? 0 : x0, x1, nc);
  const slices = product(times, half);
  const full = odd ? [...half.slice(1).map((x) => -x).reverse(), ...half] : half;
  const mirror = (u) => (odd ? [...u.slice(1).map((v) => -v).reverse(), ...u] : u);
  const cells = new ImageData(nt, odd ? 2 * nx - 1 : nx);
  const picture = element("canvas", { width: cells.width, height: cells.height });
  let [low, high] = data.ranges[field];
  let table, inks;

  function theme() {
    table = shades(root, low);
    inks = [0, 1, 2, 3].map((i) => colour(root, `--hpx-c${i}`));
  }

  function heat(u) {
    const rows = cells.height;
    const put = (i, j, v) => {
      const shade = table[Math.max(0, Math.min(255, Math.round(255 * (v - low) / (high - low))))];
      const at = 4 * ((rows - 1 - j) * nt + i);
      cells.data[at] = shade[0];
      cells.data[at + 1] = shade[1];
      cells.data[at + 2] = shade[2];
      cells.data[at + 3] = 255;
    };
    for (let i = 0; i < nt; i++)
      for (let j = 0; j < nx; j++) {
        const v = u[i * nx + j];
        put(i, odd ? nx - 1 + j : j, v);
        if (odd) put(i, nx - 1 - j, -v);
      }
    picture.getContext("2d").putImageData(cells, 0, 0);
    map.clear(root);
    const place = [34, 24, map.w - 12, map.h - 40];
    map.axes([t0, t1], [x0, x1], { x: names[0], y: names[1], xs: [t0, (t0 + t1) / 2, t1], place,
      ys: [x0, (x0 + x1) / 2, x1].map((v) => [v, tick(v)]) });
    map.pen.drawImage(picture, place[0], place[1], place[2] - place[0], place[3] - place[1]);
    times.forEach((t, i) => {
      map.pen.strokeStyle = inks[i];
      map.pen.lineWidth = 2;
      map.segment(map.px(t), place[3], map.px(t), place[3] - 9);
      map.segment(map.px(t), place[1], map.px(t), place[1] + 9);
    });
  }

  function draw(u, exact, errors) {
    curves.clear(root);
    const bottom = exact ? Math.round(curves.h * 0.6) : curves.h - 40;
    const right = curves.w - 8, pad = 0.08 * (high - low);
    curves.pen.textBaseline = "bottom";
    curves.axes([x0, x1], [low - pad, high + pad], {
      y: data.fields[field], xs: exact ? [] : [x0, (x0 + x1) / 2, x1], x: exact ? "" : names[1],
      ys: [low, (low + high) / 2, high].map((v) => [v, tick(v)]),
      place: [50, 24, right, bottom] });
    const legend = (right - 70) / 4;
    times.forEach((t, i) => {
      curves.pen.fillStyle = inks[i];
      curves.pen.fillText(`${names[0]} = ${tick(t)}`, 66 + i * legend, 20);
    });
    if (exact && overlay.checked)
      exact.forEach((v) => curves.line(full, v, colour(root, "--hpx-exact"), 5));
    u.forEach((v, i) => curves.line(full, v, inks[i], 1.6));
    if (!exact) return;
    // The error in a strip of its own, at a scale of 1, 2 or 5 times a power of ten.
    const worst = Math.max(...errors.flat().map(Math.abs));
    const order = Math.floor(Math.log10(worst || 1e-16));
    const first = [1, 2, 5, 10].find((c) => c * 10 ** order >= worst) ?? 1;
    const top = first * 10 ** order;
    const name = first === 10 ? power(order + 1) : first === 1 ? power(order) : `${first}·${power(order)}`;
    curves.axes([x0, x1], [-1, 1], { x: names[1], y: "", xs: [x0, (x0 + x1) / 2, x1],
      ys: [[-1, ""], [0, "0"], [1, name]],
      place: [50, bottom + 26, right, curves.h - 40] });
    curves.pen.fillStyle = curves.ink;
    curves.pen.textAlign = "left";
    curves.pen.textBaseline = "bottom";
    curves.pen.fillText("error û − u", 54, bottom + 22);
    errors.forEach((e, i) => curves.line(full, e.map((v) => v / top), inks[i], 1.2));
  }

  // The first drawing is slower than any move, so it does not tell its time.
  function update(moved = false) {
    const began = performance.now();
    const value = lam();
    const theta = model.weightsFor(value);
    const made = performance.now();
    const net = model.columns(theta);
    const u = net(grid)[field], at = net(slices)[field];
    const rows = times.map((_, i) => mirror([...at.subarray(i * nc, (i + 1) * nc)]));
    const exact = truth && times.map((t) => mirror(truth(t, [...half], value[0])));
    const errors = exact && rows.map((v, i) => v.map((a, j) => a - exact[i][j]));
    heat(u);
    draw(rows, exact, errors);
    let text = `${model.flat.length} weights wrote ${model.size}`;
    if (exact) {
      const squares = errors.flat().map((e) => e ** 2);
      text = `Mean squared error on these curves: ${number(squares.reduce((a, b) => a + b) / squares.length)}. ${text}`;
    }
    const ms = performance.now() - began;
    if (moved) text += ` in ${(made - began).toFixed(1)} ms; all of this picture took ${ms.toFixed(0)} ms`;
    status.textContent = `${text}.`;
    return ms;
  }

  // The shock forming: ν falls through its range, and rises again.
  player(button, sliders[0].input, update);
  return { update, theme, sliders };
}
