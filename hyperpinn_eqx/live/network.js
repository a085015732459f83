/* The networks in JavaScript, as in networks/hyper.py and networks/main.py; all arithmetic is in float64. */

const tanh = (x) => 1 - 2 / (Math.exp(2 * x) + 1);

const ends = ([low, high, kind]) => (kind === "log" ? [Math.log(low), Math.log(high)] : [low, high]);

// An affine map to [-1, 1], through the logarithm on log axes; a fixed one gives 0.
function scale(range, value) {
  const [low, high] = ends(range);
  const v = range[2] === "log" ? Math.log(value) : value;
  return high > low ? (2 * v - low - high) / (high - low) : 0;
}

function unscale(range, s) {
  const [low, high] = ends(range);
  const v = (s * (high - low) + low + high) / 2;
  return range[2] === "log" ? Math.exp(v) : v;
}

// What a network sees: of periodic axes the cosine, and after all others the sine.
function embed(ranges, scaled) {
  const periodic = (_, i) => ranges[i][2] === "periodic";
  const sines = scaled.filter(periodic).map((s) => Math.sin(Math.PI * s));
  return [...scaled.map((s, i) => (periodic(s, i) ? Math.cos(Math.PI * s) : s)), ...sines];
}

function decode(text, type) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  return Float64Array.from(type === "float32"
    ? new Float32Array(bytes.buffer) : new Float64Array(bytes.buffer));
}

class HyperPINN {
  constructor(data) {
    Object.assign(this, data);
    this.flat = decode(data.weights, data.dtype);
    this.ranges = Object.values(data.parameters);
    this.box = Object.values(data.inputs);
    this.after = data.outputs && Object.values(data.outputs);
  }

  // θ(λ) = θ₀ + W z(λ)
  weightsFor(lam) {
    let at = 0;
    const affine = (x, n) => {
      const [w, b] = [at, at + n * x.length];
      at = b + n;
      return Float64Array.from({ length: n }, (_, i) => {
        let sum = this.flat[b + i];
        for (let j = 0; j < x.length; j++) sum += this.flat[w + i * x.length + j] * x[j];
        return sum;
      });
    };
    let z = embed(this.ranges, this.ranges.map((range, i) => scale(range, lam[i])));
    for (const width of this.hidden) z = affine(z, width).map(tanh);
    return affine(z, this.size);
  }

  // The main network at one point, written into `out`.
  field(theta) {
    const { sizes, box, after } = this, last = sizes.length - 1;
    const layers = sizes.map((n) => new Float64Array(n));
    const rings = box.some((range) => range[2] === "periodic");
    return (point, out) => {
      for (let i = 0; i < box.length; i++)
        layers[0][i] = (2 * point[i] - box[i][0] - box[i][1]) / (box[i][1] - box[i][0]);
      if (rings) layers[0].set(embed(box, [...layers[0].subarray(0, box.length)]));
      for (let k = 0, at = 0; k < last; k++) {
        const [now, next] = [layers[k], layers[k + 1]], bias = at + now.length * next.length;
        for (let o = 0; o < next.length; o++) {
          let sum = theta[bias + o];
          for (let i = 0; i < now.length; i++) sum += theta[at++] * now[i];
          next[o] = k + 1 < last ? tanh(sum) : sum;
        }
        at = bias + next.length;
      }
      for (let o = 0; o < sizes[last]; o++) {
        const [low, high] = after ? after[o] : [-1, 1];
        out[o] = (layers[last][o] * (high - low) + high + low) / 2;
      }
      return out;
    };
  }

  // The main network at many points: columns of coordinates in, columns of outputs out.
  // Feature by feature over blocks of points, so that the inner loops are plain.
  columns(theta) {
    const { sizes, odd, box, after } = this;
    const block = 512, width = Math.max(...sizes);
    let [now, next] = [0, 1].map(() => new Float64Array(width * block));
    return (columns, n = columns[0].length) => {
      const last = sizes.length - 1;
      const out = Array.from({ length: sizes[last] }, () => new Float64Array(n));
      for (let from = 0; from < n; from += block) {
        const m = Math.min(block, n - from);
        for (let i = 0, sine = box.length; i < box.length; i++) {
          const [low, high, kind] = box[i], column = columns[i];
          for (let p = 0; p < m; p++) {
            const v = column[from + p];
            const s = (2 * v - low - high) / (high - low);
            now[i * block + p] = i === odd ? 2 * Math.abs(s) - 1 : s;
          }
          if (kind !== "periodic") continue;
          for (let p = 0; p < m; p++) {
            const angle = Math.PI * now[i * block + p];
            now[i * block + p] = Math.cos(angle);
            now[sine * block + p] = Math.sin(angle);
          }
          sine++;
        }
        for (let k = 0, at = 0; k < last; k++) {
          const [size, outs] = [sizes[k], sizes[k + 1]], bias = at + size * outs;
          for (let o = 0; o < outs; o++) {
            const row = o * block;
            for (let p = 0; p < m; p++) next[row + p] = theta[bias + o];
            for (let i = 0; i < size; i++) {
              const w = theta[at + o * size + i], source = i * block;
              for (let p = 0; p < m; p++) next[row + p] += w * now[source + p];
            }
            if (k + 1 < last)
              for (let p = 0; p < m; p++)
                next[row + p] = tanh(next[row + p]);
          }
          at = bias + outs;
          [now, next] = [next, now];
        }
        for (let o = 0; o < out.length; o++) {
          const [a, b] = after ? [(after[o][1] - after[o][0]) / 2,
            (after[o][1] + after[o][0]) / 2] : [1, 0];
          for (let p = 0; p < m; p++) {
            const sign = odd !== null && columns[odd][from + p] < 0 ? -1 : 1;
            out[o][from + p] = sign * (a * now[o * block + p] + b);
          }
        }
      }
      return out;
    };
  }
}
