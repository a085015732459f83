/* A family over two coordinates in space, on any domain: one field in colours, and where
   there is a flow (u, v), its stream lines. */

// The images of the nodes of a grid: each column of `basis` times a polynomial in λ.
class Mesh {
  constructor({ shape, rank, degrees, basis, series }) {
    Object.assign(this, { shape, rank, degrees });
    this.n = shape[0] * shape[1];
    this.basis = decode(basis, "float32");
    this.series = decode(series, "float32");
  }

  // The columns x and y for λ scaled to [-1, 1].
  at(scaled) {
    const { n, rank, degrees, basis, series } = this;
    const chebyshev = scaled.map((s, i) =>
      Float64Array.from({ length: degrees[i] }, (_, k) => Math.cos(k * Math.acos(Math.max(-1, Math.min(1, s))))));
    let products = [1];
    for (const values of chebyshev) products = products.flatMap((p) => [...values].map((v) => p * v));
    const columns = [new Float64Array(n), new Float64Array(n)];
    for (let r = 0; r < rank; r++) {
      const by = products.reduce((sum, p, k) => sum + p * series[r * products.length + k], 0);
      columns.forEach((column, c) => {
        const from = (2 * r + c) * n;
        for (let i = 0; i < n; i++) column[i] += by * basis[from + i];
      });
    }
    return columns;
  }
}

function shape(root, model, data) {
  const { controls, panels, status, sliders, lam, button } = frame(root, model, data.start);
  const [[x0, x1], [y0, y1]] = model.box, names = Object.keys(model.inputs);
  const map = new Plot(panels, data.labels[0], `${x1 - x0} / ${y1 - y0}`);
  panels.classList.add("hpx-single");
  const mesh = new Mesh(data.mesh);
  const flow = ["u", "v"].map((name) => data.fields.indexOf(name));
  const flows = flow.every((i) => i >= 0);
  const choices = [...data.fields, ...(flows ? ["speed"] : [])];
  let field = flows ? choices.length - 1 : 0, [low, high] = data.ranges[field], table;
  chooser(controls, choices, field, (chosen) => {
    field = chosen;
    [low, high] = data.ranges[field];
    theme();
    update(true);
  });
  const long = x1 - x0 > y1 - y0 ? 420 : Math.round(420 * (x1 - x0) / (y1 - y0));
  const cells = new ImageData(long, Math.round(long * (y1 - y0) / (x1 - x0)));
  const picture = element("canvas", { width: cells.width, height: cells.height });
  const column = (x) => (x - x0) / (x1 - x0) * (cells.width - 1);
  const row = (y) => (y1 - y) / (y1 - y0) * (cells.height - 1);

  function theme() { table = shades(root, low); }

  // Two triangles for each cell of the mesh, pixel by pixel.
  function fill([xs, ys], u) {
    cells.data.fill(0);
    const [m, n] = mesh.shape;
    const px = xs.map(column), py = ys.map(row);
    const shade = u.map((v) => 255 * (v - low) / (high - low));
    const triangle = (a, b, c) => {
      const area = (px[b] - px[a]) * (py[c] - py[a]) - (px[c] - px[a]) * (py[b] - py[a]);
      if (!area) return;
      const top = Math.max(0, Math.ceil(Math.min(py[a], py[b], py[c]) - 0.01));
      const bottom = Math.min(cells.height - 1, Math.floor(Math.max(py[a], py[b], py[c]) + 0.01));
      const left = Math.max(0, Math.ceil(Math.min(px[a], px[b], px[c]) - 0.01));
      const right = Math.min(cells.width - 1, Math.floor(Math.max(px[a], px[b], px[c]) + 0.01));
      for (let j = top; j <= bottom; j++)
        for (let i = left; i <= right; i++) {
          const s = ((px[b] - i) * (py[c] - j) - (px[c] - i) * (py[b] - j)) / area;
          const t = ((px[c] - i) * (py[a] - j) - (px[a] - i) * (py[c] - j)) / area;
          if (s < -0.02 || t < -0.02 || s + t > 1.02) continue;
          const v = s * shade[a] + t * shade[b] + (1 - s - t) * shade[c];
          const ink = table[Math.max(0, Math.min(255, Math.round(v)))], at = 4 * (j * cells.width + i);
          cells.data[at] = ink[0];
          cells.data[at + 1] = ink[1];
          cells.data[at + 2] = ink[2];
          cells.data[at + 3] = 255;
        }
    };
    for (let i = 0; i + 1 < m; i++)
      for (let j = 0; j + 1 < n; j++) {
        const a = i * n + j;
        triangle(a, a + 1, a + n);
        triangle(a + 1, a + n + 1, a + n);
      }
    picture.getContext("2d").putImageData(cells, 0, 0);
  }

  const inside = (x, y) => {
    const i = Math.round(column(x)), j = Math.round(row(y));
    return i >= 0 && j >= 0 && i < cells.width && j < cells.height && cells.data[4 * (j * cells.width + i) + 3];
  };

  // Stream lines from seeds all over the mesh, in steps of one length.
  function streams(net, [xs, ys]) {
    const [m, n] = mesh.shape, step = 0.012 * Math.hypot(x1 - x0, y1 - y0);
    const seeds = [];
    for (let i = 1; i < 9; i++)
      for (let j = 1; j < 7; j++) {
        const at = Math.round(i * (m - 1) / 9) * n + Math.round(j * (n - 1) / 7);
        seeds.push([xs[at], ys[at]]);
      }
    let ends = [Float64Array.from(seeds, (p) => p[0]), Float64Array.from(seeds, (p) => p[1])];
    const lines = seeds.map((p) => [p]);
    const alive = seeds.map(() => true);
    for (let k = 0; k < 14; k++) {
      const slope = net(ends), middle = ends.map((c) => c.slice());
      const move = (to, along, size) => seeds.forEach((_, i) => {
        const [u, v] = flow.map((f) => along[f][i]), speed = Math.hypot(u, v) || 1;
        to[0][i] = ends[0][i] + size * u / speed;
        to[1][i] = ends[1][i] + size * v / speed;
      });
      move(middle, slope, step / 2);
      const next = ends.map((c) => c.slice());
      move(next, net(middle), step);
      ends = next;
      seeds.forEach((_, i) => {
        alive[i] &&= inside(ends[0][i], ends[1][i]);
        if (alive[i]) lines[i].push([ends[0][i], ends[1][i]]);
      });
    }
    const { pen } = map;
    pen.strokeStyle = pen.fillStyle = map.ink;
    pen.lineWidth = 1.1;
    for (const line of lines.filter((points) => points.length > 4)) {
      pen.beginPath();
      line.forEach(([x, y]) => pen.lineTo(map.px(x), map.py(y)));
      pen.stroke();
      const [[ax, ay], [bx, by]] = line.slice(-2).map(([x, y]) => [map.px(x), map.py(y)]);
      const angle = Math.atan2(by - ay, bx - ax);
      pen.beginPath();
      for (const turn of [0, 2.5, -2.5])
        pen.lineTo(bx + 5 * Math.cos(angle + turn), by + 5 * Math.sin(angle + turn));
      pen.fill();
    }
  }

  function update(moved = false) {
    const began = performance.now();
    const value = lam();
    const theta = model.weightsFor(value);
    const made = performance.now();
    const net = model.columns(theta);
    const places = mesh.at(model.ranges.map((range, i) => scale(range, value[i])));
    const found = net(places);
    const u = field < data.fields.length ? found[field]
      : found[flow[0]].map((a, i) => Math.hypot(a, found[flow[1]][i]));
    fill(places, u);
    map.clear(root);
    // Both axes at one scale.
    const size = Math.min((map.w - 60) / (x1 - x0), (map.h - 64) / (y1 - y0));
    const [wide, left] = [size * (x1 - x0), Math.max(48, (map.w - size * (x1 - x0)) / 2)];
    map.axes([x0, x1], [y0, y1], { x: names[0], y: names[1], xs: round(x0, x1),
      ys: round(y0, y1).map((v) => [v, tick(v)]),
      place: [left, 24, left + wide, 24 + size * (y1 - y0)] });
    map.pen.drawImage(picture, left, 24, wide, map.py(y0) - 24);
    if (flows) streams(net, places);
    const ms = performance.now() - began;
    const least = u.reduce((a, b) => Math.min(a, b)), most = u.reduce((a, b) => Math.max(a, b));
    let text = `${choices[field]} from ${number(least)} to ${number(most)}. `
      + `${model.flat.length} weights wrote ${model.size}`;
    if (moved) text += ` in ${(made - began).toFixed(1)} ms; all of this picture took ${ms.toFixed(0)} ms`;
    status.textContent = `${text}.`;
    return ms;
  }

  player(button, sliders[0].input, update);
  return { update, theme, sliders };
}
