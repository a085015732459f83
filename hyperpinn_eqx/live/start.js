/* The figure's check of itself, and its start. */

// The largest difference to JAX, and to the exact solutions of the package.
function check(model, data) {
  let worst = 0;
  const mesh = data.mesh && new Mesh(data.mesh);
  data.golden.forEach(({ lam, points, values, exact, nodes }) => {
    const places = mesh?.at(model.ranges.map((range, i) => scale(range, lam[i])));
    nodes?.forEach((node) => node.at.forEach((v, c) => {
      worst = Math.max(worst, Math.abs(places[c][node.index] - v));
    }));
    const theta = model.weightsFor(lam);
    const columns = model.columns(theta)(
      model.box.map((_, i) => Float64Array.from(points, (p) => p[i])));
    points.forEach((p, n) => {
      const truth = data.equation === "burgers" ? burgers(p[0], [p[1]], lam[0])
        : data.equation === "lorenz" ? lorenz(lam)(p, []) : [];
      const found = [columns.map((column) => column[n])];
      if (model.odd === null) found.push(model.field(theta)(p, []));
      values[n].forEach((value, k) => {
        for (const out of found) worst = Math.max(worst, Math.abs(out[k] - value));
        if (truth.length) worst = Math.max(worst, Math.abs(truth[k] - exact[n][k]));
      });
    });
  });
  return worst;
}

function start(id) {
  const root = document.getElementById(id);
  const data = JSON.parse(root.querySelector("script[type='application/json']").textContent);
  const model = new HyperPINN(data.model);
  const error = check(model, data);
  const live = { waves, attractor, shape }[data.kind](root, model, data);
  const report = (ms) => { root.dataset.check = JSON.stringify({ error, ms }); };
  const again = () => { live.theme(); report(live.update()); };
  for (const { input } of live.sliders) input.addEventListener("input", () => report(live.update(true)));
  new ResizeObserver(again).observe(root);
  const themes = new MutationObserver(again);
  for (const node of [document.documentElement, document.body])
    themes.observe(node, { attributeFilter: ["data-theme", "data-jp-theme-light"] });
  again();
  live.start?.();
  if (!(error < 1e-5)) {
    root.append(element("p", { className: "hpx-status", textContent:
      `This figure failed its check: it differs from the package by ${number(error)}.` }));
  }
}
