/* A family of vector fields: a trajectory, turning, beside that of the exact field. */

function attractor(root, model, data) {
  const { panels, status, sliders, lam, button } = frame(root, model, data.start);
  const views = data.labels.slice(0, 2).map((label) => new Plot(panels, label, "1 / 0.88"));
  const series = new Plot(panels, data.labels[2], "1 / 0.28");
  series.canvas.classList.add("hpx-wide");
  panels.classList.add("hpx-pair");
  const steps = 2500, dt = 0.01;
  const times = Float64Array.from({ length: steps + 1 }, (_, n) => n * dt);
  const titles = ["learned", "exact"];
  let paths, size, inks, angle = 0.6, shown = steps, turning = 0;

  // Runge-Kutta of order 4 with a fixed step, in place: 10 000 evaluations in a move of
  // a slider leave no time for making arrays.
  function path(field) {
    const states = [data.state];
    const [x, y, k] = [Float64Array.from(data.state), new Float64Array(3), new Float64Array(3)];
    const sum = new Float64Array(3);
    for (let n = 0; n < steps; n++) {
      field(x, k);
      for (let i = 0; i < 3; i++) { sum[i] = k[i]; y[i] = x[i] + dt / 2 * k[i]; }
      field(y, k);
      for (let i = 0; i < 3; i++) { sum[i] += 2 * k[i]; y[i] = x[i] + dt / 2 * k[i]; }
      field(y, k);
      for (let i = 0; i < 3; i++) { sum[i] += 2 * k[i]; y[i] = x[i] + dt * k[i]; }
      field(y, k);
      for (let i = 0; i < 3; i++) x[i] += dt / 6 * (sum[i] + k[i]);
      if (!(Math.abs(x[0]) + Math.abs(x[1]) + Math.abs(x[2]) < 1e3)) break;
      states.push([x[0], x[1], x[2]]);
    }
    return states;
  }

  function view(plot, states, ink, title) {
    plot.clear(root);
    const { pen, w, h } = plot, [c, s] = [Math.cos(angle), Math.sin(angle)];
    const unit = Math.min((w - 16) / (2 * size.r), (h - 36) / (size.top - size.bottom));
    const middle = (size.top + size.bottom) / 2;
    const point = ([x, y, z]) => [w / 2 + unit * (c * x - s * y), (h + 24) / 2 - unit * (z - middle)];
    pen.fillStyle = plot.ink;
    pen.textAlign = "left";
    pen.textBaseline = "top";
    pen.fillText(title, 8, 6);
    pen.strokeStyle = ink;
    pen.lineWidth = 1;
    // Older parts of the path are fainter.
    const end = Math.min(shown, states.length - 1), parts = 10;
    for (let k = 0; k < parts; k++) {
      const [from, to] = [Math.floor(end * k / parts), Math.floor(end * (k + 1) / parts)];
      pen.globalAlpha = 0.25 + 0.75 * (k + 1) / parts;
      pen.beginPath();
      for (let n = from; n <= to; n++) pen.lineTo(...point(states[n]));
      pen.stroke();
    }
    pen.globalAlpha = 1;
    const [x, y] = point(states[end]);
    pen.fillStyle = ink;
    pen.beginPath();
    pen.arc(x, y, 4, 0, 2 * Math.PI);
    pen.fill();
  }

  function draw() {
    views.forEach((plot, i) => view(plot, paths[i], inks[i], titles[i]));
    series.clear(root);
    const high = size.x * 1.05;
    series.axes([0, steps * dt], [-high, high], { x: "t", y: "x", xs: [0, 5, 10, 15, 20, 25],
      ys: [[0, "0"]], place: [24, 22, series.w - 10, series.h - 38] });
    for (const [i, width] of [[1, 4], [0, 1.4]])
      series.line(times, paths[i].slice(0, shown + 1).map(([x]) => x), inks[i], width);
  }

  function theme() {
    inks = [colour(root, "--hpx-c1"), colour(root, "--hpx-truth")];
  }

  function update(moved = false) {
    const began = performance.now();
    const value = lam(), field = lorenz(value), net = model.field(model.weightsFor(value));
    paths = [path(net), path(field)];
    const [guess, exact] = paths;
    // Of both paths after their first second, so that both are seen in one scale.
    const seen = [...exact.slice(100), ...guess.slice(100)];
    const most = (f) => seen.reduce((a, x) => Math.max(a, f(x)), 0);
    size = { r: Math.max(most(([x, y]) => Math.hypot(x, y)), 2), top: Math.max(most(([, , z]) => z), 3),
      x: Math.max(exact.reduce((a, [x]) => Math.max(a, Math.abs(x)), 0), 2), bottom: -most(([, , z]) => -z) };
    const [f, g] = [new Float64Array(3), new Float64Array(3)];
    let wrong = 0, right = 0;
    for (const x of exact) {
      net(x, g);
      field(x, f);
      for (let i = 0; i < 3; i++) { wrong += (g[i] - f[i]) ** 2; right += f[i] ** 2; }
    }
    const mean = [0, 1, 2].map((i) => exact.reduce((a, x) => a + x[i], 0) / exact.length);
    const far = (a, b) => Math.sqrt((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2 + (a[2] - b[2]) ** 2);
    const spread = Math.sqrt(exact.reduce((a, x) => a + far(x, mean) ** 2, 0) / exact.length);
    const part = exact.findIndex((x, n) => !guess[n] || far(x, guess[n]) > 0.4 * spread);
    shown = steps;
    draw();
    const ms = performance.now() - began;
    status.textContent = `The learned field is wrong by ${(100 * Math.sqrt(wrong / right)).toPrecision(2)} % along the exact path. `
      + `Its forecast is valid for ${part < 0 ? "all 25 s" : `${(part * dt).toFixed(1)} s`}.`;
    if (moved) status.textContent += ` Two runs of ${steps} steps and this picture took ${ms.toFixed(0)} ms.`;
    return ms;
  }

  function turn(now, before = now) {
    angle += (now - before) * 2.5e-4;
    shown = Math.min(steps, Math.round(shown + (now - before) * 0.25));
    draw();
    turning = requestAnimationFrame((next) => turn(next, now));
  }

  function rotate(on) {
    cancelAnimationFrame(turning);
    turning = on ? requestAnimationFrame((now) => turn(now)) : 0;
    hold.textContent = on ? "Hold" : "Rotate";
  }

  button("Grow", () => { shown = 0; rotate(true); });
  let wanted = !matchMedia("(prefers-reduced-motion: reduce)").matches;
  const hold = button("Hold", () => {
    wanted = !turning;
    rotate(wanted);
  });
  const start = () => new IntersectionObserver(([entry]) =>
    rotate(entry.isIntersecting && wanted)).observe(root);
  return { update, theme, sliders, start };
}
