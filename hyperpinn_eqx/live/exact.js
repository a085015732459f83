/* The exact solutions, as in problems/. */

// Burgers' equation by Cole-Hopf, as in problems/burgers.py: two Gaussian means by the
// trapezoid rule, here at given positions x and one time.
function burgers(t, xs, nu) {
  if (t === 0) return xs.map((x) => -Math.sin(Math.PI * x));
  const width = Math.sqrt(4 * t / Math.PI + 160 * nu * t);
  const peak = Math.min(Math.sqrt(2 * nu * t / (1 + Math.PI * t)), 0.2);
  const n = 1 + Math.ceil(3 * width / peak), step = 2 * width / (n - 1);
  const nodes = Array.from({ length: n }, (_, i) => {
    const eta = i * step - width;
    return [Math.cos(Math.PI * eta), Math.sin(Math.PI * eta), -eta * eta / (4 * nu * t)];
  });
  return xs.map((x) => {
    const c = Math.cos(Math.PI * x), s = Math.sin(Math.PI * x);
    let above = 0, below = 0;
    for (const [ce, se, gauss] of nodes) {
      const w = Math.exp(gauss - (c * ce + s * se) / (2 * Math.PI * nu));
      above += w * (s * ce - c * se);
      below += w;
    }
    return -above / below;
  });
}

const lorenz = ([sigma, beta, rho]) => (state, rate) => {
  const [x, y, z] = state;
  rate[0] = sigma * (y - x);
  rate[1] = x * (rho - z) - y;
  rate[2] = x * y - beta * z;
  return rate;
};
