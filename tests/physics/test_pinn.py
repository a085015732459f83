import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import hyperpinn_eqx as hpx
from hyperpinn_eqx import Batch, Loss, slope_weight
from hyperpinn_eqx import _blocks as devices
from hyperpinn_eqx.dynamics.loss import multistep_loss
from hyperpinn_eqx.dynamics.multistep import adams_moulton, bdf
from hyperpinn_eqx.physics.pinn import targets

pinn_loss = eqx.filter_jit(hpx.pinn_loss)
residuals = eqx.filter_jit(hpx.residuals)
multistep = eqx.filter_jit(multistep_loss)


@pytest.fixture
def batch(heat, getkey):
    """Three λ with four collocation points each, and two and three conditions."""
    return Batch(
        jnp.array([[0.02], [0.1], [0.7]]),
        eqx.filter_jit(hpx.uniform)(heat.domain, (3, 4), key=getkey()),
        *eqx.filter_jit(hpx.conditions)(heat, 2, 3, key=getkey()),
    )


def test_total_is_the_sum_of_the_terms():
    loss = Loss({"a": jnp.array(1.0), "b": jnp.array(2.0), "c": jnp.array(4.0)})
    assert loss.total == 7


def test_total_keeps_the_precision_of_its_terms(x64):
    loss = Loss({"a": jnp.array(1, jnp.float32), "b": jnp.array(2, jnp.float32)})
    assert loss.total.dtype == jnp.float32


def test_terms_may_be_any_real_numbers(unchecked):
    loss = Loss({"a": 1, "b": np.float64(2.5), "c": jnp.asarray(3)})
    assert loss.total == 6.5
    assert {term.dtype for term in loss.terms.values()} == {jnp.dtype("float32")}


def test_junk_for_a_loss(throw_junk_at):
    throw_junk_at(hpx.Loss, terms={"data": jnp.array(1.0)})


@pytest.mark.parametrize("value", [jnp.ones(1), [1.0], None, "1", 1j])
def test_a_term_that_is_no_number_is_an_error(value, unchecked):
    with pytest.raises(ValueError, match=r"terms\['bad'\].* expected .*\(\)"):
        Loss({"good": jnp.array(1.0), "bad": value})


def test_a_loss_without_terms_or_names_is_an_error(unchecked):
    with pytest.raises(ValueError, match="terms = {}, expected one part or more"):
        Loss({})
    with pytest.raises(TypeError, match="name in terms = 3, expected a str"):
        Loss({"good": jnp.array(1.0), 3: jnp.array(1.0)})


def test_pinn_loss_is_equation_six(x64, heat, model, batch):
    # One point after another, by reverse mode.
    data, physics = [], []
    for lam, points in zip(batch.lam, batch.points, strict=True):
        u = model(lam)
        u_t = jax.jit(jax.grad(u))
        u_xx = jax.jit(jax.hessian(u))
        for p in points:
            physics.append((u_t(p)[0] - lam[0] * u_xx(p)[1, 1]) ** 2)
        for p in batch.initial:
            data.append((u(p) + np.sin(np.pi * p[1])) ** 2)
        for p in batch.boundary:
            data.append(u(p) ** 2)
    loss = pinn_loss(model, heat, batch)
    np.testing.assert_allclose(loss.terms["data"], np.mean(data), rtol=1e-12)
    np.testing.assert_allclose(loss.terms["physics"], np.mean(physics), rtol=1e-12)
    assert set(loss.terms) == {"data", "physics"}


def test_alpha_multiplies_the_physics_alone(x64, heat, model, batch):
    one = pinn_loss(model, heat, batch).terms
    ten = pinn_loss(model, heat, batch, alpha=10.0).terms
    np.testing.assert_allclose(ten["physics"], 10 * one["physics"], rtol=1e-14)
    assert ten["data"] == one["data"]


def test_the_hypernetwork_runs_once_for_each_lambda(heat, hyper, counting, batch):
    counted, calls = counting(hyper)
    pinn_loss(counted, heat, batch)
    jax.effects_barrier()
    expected = heat.parameters.scale(batch.lam)[:, 0]
    np.testing.assert_allclose(np.sort(calls), np.sort(expected), rtol=1e-5)


def test_counting_would_notice_a_hypernetwork_that_runs_at_every_point(
    hyper, counting, batch
):
    counted, calls = counting(hyper)
    lams = jnp.repeat(batch.lam, 4, axis=0)
    pairs = jax.jit(jax.vmap(lambda lam, p: counted(lam)(p)))
    pairs(lams, batch.points.reshape(12, 2))
    jax.effects_barrier()
    assert len(calls) == 12


def test_forward_and_reverse_mode_of_a_loss_agree(x64, heat, model, batch):
    flat, unravel = ravel_pytree(eqx.filter(model, eqx.is_array))
    rest = eqx.filter(model, eqx.is_array, inverse=True)

    def total(flat):
        return hpx.pinn_loss(eqx.combine(unravel(flat), rest), heat, batch).total

    reverse = jax.jit(jax.grad(total))(flat)
    forward = jax.jit(jax.jacfwd(total))(flat)
    largest = float(np.max(np.abs(reverse)))
    np.testing.assert_allclose(forward, reverse, rtol=1e-12, atol=1e-13 * largest)


def test_residuals_can_be_weighted(x64, heat, model, batch):
    lam, points = batch.lam[0], batch.points[0]
    net = model(lam)
    plain = residuals(net, heat, lam, points)
    weighted = residuals(net, heat, lam, points, weight=lambda u: 1 / (1 + u.t**2))
    u_t = jax.jit(jax.vmap(jax.grad(net)))(points)[:, 0]
    np.testing.assert_allclose(weighted, plain / (1 + u_t**2), rtol=1e-12)


def test_slope_weight_is_one_over_one_plus_the_slopes():
    u = hpx.Jet(jnp.zeros(2), {"t": jnp.array([-1.0, 2]), "x": jnp.array([3.0, -5])})
    np.testing.assert_allclose(slope_weight("x")(u), [1 / 4, 1 / 6])
    np.testing.assert_allclose(slope_weight("t", "x")(u), [1 / 5, 1 / 8])
    np.testing.assert_array_equal(slope_weight()(u), [1, 1])


def test_slope_weight_is_not_differentiated():
    def weighted(slope):
        return slope_weight("x")(hpx.Jet(slope, {"x": slope})) * slope

    # 1 / (1 + 3), without the weight's own derivative.
    assert jax.grad(weighted)(3.0) == 0.25


def test_the_loss_can_be_differentiated_by_every_parameter(heat, hyper, batch):
    grads = jax.jit(jax.grad(lambda m: pinn_loss(m, heat, batch).total))(hyper)
    for leaf in map(np.asarray, jax.tree.leaves(grads)):
        assert np.all(np.isfinite(leaf)) and np.any(leaf)


def test_float32_models_and_batches_stay_float32_in_x64_mode(heat, model, batch, x64):
    problem = hpx.Burgers()
    loss = pinn_loss(model, problem, batch, weight=slope_weight("x"))
    assert loss.total.dtype == jnp.float32


@pytest.mark.parametrize("precision", [jnp.float32, jnp.float64])
def test_losses_are_computed_in_the_precision_of_the_weights(
    precision, heat, hyper, fields, batch, windows, x64
):
    class IntegerWalls(type(heat)):
        def boundary(self, tx, lam):
            return 0

    scale = jnp.array([2.0, 5.0])
    # As many states in a window as no other axis has.
    windows = jnp.concatenate([windows, windows[:, :, :1]], axis=2)

    @eqx.filter_jit
    def both(models, batch, windows, scale):
        a = hpx.pinn_loss(models[0], IntegerWalls(), batch, weight=slope_weight("xx"))
        b = multistep_loss(
            models[1], batch.lam, windows, scheme=bdf(2), dt=0.1, scale=scale
        )
        return a.terms | b.terms

    models = hpx.cast((hyper, fields), precision)
    data = batch, windows, scale
    exact, rounded = (hpx.cast(data, d) for d in (jnp.float64, jnp.float32))
    want = both(models, *hpx.cast(data, precision))
    for given in (exact, rounded):
        for name, value in both(models, *given).items():
            assert value.dtype == precision
            np.testing.assert_allclose(value, want[name], rtol=1e-5)


@pytest.fixture
def fields(heat, getkey):
    """A tiny family of vector fields of two components."""
    main = hpx.MainNetSpec((2, 4, 2), hpx.Box(x=(-2, 2), y=(-2, 2)), bounded=False)
    return eqx.filter_jit(hpx.HyperPINN)(main, heat.parameters, (3,), key=getkey())


@pytest.fixture
def windows(batch):
    """Four windows of two states for each λ."""
    states = np.random.default_rng(0).normal(size=(3, 4, 2, 2))
    return jnp.asarray(states, batch.lam.dtype)


def test_multistep_loss_is_equation_nine(x64, fields, batch, windows):
    scale, terms = np.array([2.0, 5.0]), []
    for lam, pairs in zip(batch.lam, windows, strict=True):
        field = eqx.filter_jit(fields(lam))
        for old, new in pairs:
            gap = (new - old) / 0.1 - (field(old) + field(new)) / 2
            terms.append((gap / scale) ** 2)
    loss = multistep(
        fields,
        batch.lam,
        windows,
        scheme=adams_moulton(1),
        dt=0.1,
        scale=jnp.asarray(scale),
    )
    assert set(loss.terms) == {"multistep"}
    np.testing.assert_allclose(loss.total, np.mean(terms), rtol=1e-12)


def test_a_multistep_loss_runs_the_hypernetwork_once_for_each_lambda(
    heat, fields, counting, batch, windows
):
    counted, calls = counting(fields)
    multistep(counted, batch.lam, windows, scheme=bdf(1), dt=0.1, scale=jnp.ones(2))
    jax.effects_barrier()
    expected = heat.parameters.scale(batch.lam)[:, 0]
    np.testing.assert_allclose(np.sort(calls), np.sort(expected), rtol=1e-5)


def one(heat, batch, **arguments):
    """Arguments of `residuals` at the first λ."""
    net = lambda p: p[0] * p[1] ** 2  # noqa: E731
    good = {"net": net, "problem": heat, "lam": batch.lam[0], "points": batch.points[0]}
    return good | arguments


class Drift(hpx.AbstractPDE):
    """Two parameters, named so that their order counts; nothing at the start."""

    domain = hpx.Box(t=(0, 1), x=(-1, 1))
    parameters = hpx.Box(speed=(0, 1), rate=(2, 3))
    derivatives = ("t", "x")

    def residual(self, u, tx, lam):
        return u.t + lam[0] * u.x + lam[1] * tx[1]

    def initial(self, tx, lam):
        return lam[1] * tx[1]

    def boundary(self, tx, lam):
        return lam[0]


def test_two_parameters_arrive_as_an_array(unchecked):
    net = lambda p: p[0] * p[1] ** 2  # noqa: E731
    # u_t = x², u_x = 2tx.
    found = hpx.residuals(net, Drift(), [0.5, 3], [[1, 2], [0, -1]])
    np.testing.assert_allclose(found, [4 + 0.5 * 4 + 3 * 2, 1 - 3], rtol=1e-6)
    found = targets(Drift(), [0.5, 3], [[0, 2]], [[1, 1], [0, -1]])
    np.testing.assert_allclose(found, [6, 0.5, 0.5])


def test_targets_are_in_the_precision_of_the_points(x64):
    lam, points = jnp.ones(2), jnp.ones((1, 2), jnp.float32)
    assert targets(Drift(), lam, points, points).dtype == jnp.float32
    assert targets(Drift(), lam, *2 * (points.astype(float),)).dtype == jnp.float64


def test_initial_or_boundary_points_are_enough(heat, hyper, batch):
    none = jnp.zeros((0, 2))
    first = Batch(batch.lam, batch.points, batch.initial, none)
    walls = Batch(batch.lam, batch.points, none, batch.boundary)
    alone = [pinn_loss(hyper, heat, b).terms["data"] for b in (first, walls)]
    both = pinn_loss(hyper, heat, batch).terms["data"]
    # Two initial points and three at the walls.
    np.testing.assert_allclose(2 * alone[0] + 3 * alone[1], 5 * both, rtol=1e-5)


def test_without_conditions_the_equation_is_all(heat, hyper, batch):
    none = jnp.zeros((0, 2))
    alone = pinn_loss(hyper, heat, Batch(batch.lam, batch.points, none, none))
    assert list(alone.terms) == ["physics"]
    physics = pinn_loss(hyper, heat, batch).terms["physics"]
    np.testing.assert_allclose(alone.total, physics, rtol=1e-6)


@pytest.mark.parametrize("of", ["initial", "boundary", "residual"])
@pytest.mark.parametrize(
    "constant", [np.sqrt(2), np.float32(0.1), np.array([1.4])[0], np.array(3)]
)
def test_a_constant_of_any_type_leaves_the_precision_to_the_network(
    of, constant, heat, hyper, batch, x64
):
    class Changed(type(heat)):
        def residual(self, u, tx, lam):
            return super().residual(u, tx, lam) * (constant if of == "residual" else 1)

        def initial(self, tx, lam):
            return super().initial(tx, lam) * (constant if of == "initial" else 1)

        def boundary(self, tx, lam):
            return super().boundary(tx, lam) + (constant if of == "boundary" else 0)

    with jax.numpy_dtype_promotion("standard"):
        for dtype in (jnp.float32, jnp.float64):
            model, data = hpx.cast(hyper, dtype), hpx.cast(batch, dtype)
            loss = pinn_loss(model, Changed(), data)
            assert {term.dtype for term in loss.terms.values()} == {jnp.dtype(dtype)}


def test_alpha_may_be_traced(heat, hyper, batch):
    traced = jax.jit(lambda alpha: hpx.pinn_loss(hyper, heat, batch, alpha=alpha))
    found, expected = traced(0.25), pinn_loss(hyper, heat, batch, alpha=0.25)
    np.testing.assert_allclose(found.total, expected.total, rtol=1e-6)


def test_alpha_is_not_negative(heat, hyper, batch):
    assert pinn_loss(hyper, heat, batch, alpha=0.0).terms["physics"] == 0
    with pytest.raises(ValueError, match="alpha = -0.1, expected .* at least 0"):
        pinn_loss(hyper, heat, batch, alpha=-0.1)


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"lam": (3, 2)}, r"batch.lam has shape \(3, 2\), expected \(M, 1\)$"),
        ({"points": (3, 4, 3)}, r"batch.points has .* expected \(M, N, 2\)$"),
        (
            {"initial": (2, 3), "boundary": (3, 3)},
            r"batch.initial with batch.boundary .* expected \(I\+B, 2\)$",
        ),
    ],
)
def test_a_batch_of_another_problem_is_an_error(arrays, expected, heat, hyper, batch):
    wrong = eqx.tree_at(
        lambda b: [getattr(b, name) for name in arrays],
        batch,
        [jnp.ones(shape) for shape in arrays.values()],
    )
    with pytest.raises(ValueError, match=expected):
        hpx.pinn_loss(hyper, heat, wrong)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("residual", r"problem.residual of all .* \(4, 2\), expected \(4,\)"),
        ("initial", r"problem.initial of all points .* \(2, 2\), expected \(2,\)"),
        ("boundary", r"problem.boundary of all .* \(3, 2\), expected \(3,\)"),
    ],
)
def test_a_problem_that_returns_no_scalar_is_an_error(
    method, expected, heat, hyper, batch
):
    wrong = type("Wrong", (type(heat),), {method: lambda self, *args: jnp.ones(2)})
    with pytest.raises(ValueError, match=expected):
        pinn_loss(hyper, wrong(), batch)


def test_a_weight_for_each_point_is_needed(heat, batch):
    with pytest.raises(ValueError, match=r"weight of all .* \(4, 1\), .* \(4,\)"):
        hpx.residuals(**one(heat, batch, weight=lambda u: u.t[:, None]))


def test_a_network_of_two_outputs_does_not_fit_scalar_conditions(fields, batch):
    class Norm(Drift):
        parameters = hpx.Box(kappa=(0.01, 1.0, "log"))

        def residual(self, u, tx, lam):
            return jnp.sum(u.t)

    with pytest.raises(ValueError, match=r"model\(lam\) at .* \(5, 2\), .*\(5,\)"):
        pinn_loss(fields, Norm(), batch)


@pytest.mark.parametrize(
    ("argument", "value", "expected"),
    [
        ("lam", [[0.1]], r"lam has 1 rows, expected 3 as windows$"),
        ("lam", [0.1] * 3, r"lam has shape \(3,\), expected \(M, p\)$"),
        ("scale", [1.0], r"scale has shape \(1,\), expected \(2,\)$"),
        ("lam", [[0.1], [np.nan], [0.2]], r"lam holds nan at \(1, 0\)"),
        ("windows", np.full((3, 4, 2, 2), np.inf), r"windows holds inf at \(0, 0"),
        ("scale", [1.0, np.nan], r"scale holds nan at \(1,\)"),
    ],
)
def test_what_does_not_fit_a_multistep_loss_is_an_error(
    argument, value, expected, fields, batch, windows, unchecked
):
    arrays = {"lam": batch.lam, "windows": windows, "scale": jnp.ones(2)}
    with pytest.raises(ValueError, match=expected):
        multistep_loss(fields, scheme=bdf(1), dt=0.1, **arrays | {argument: value})


@pytest.mark.parametrize(
    ("argument", "value", "expected"),
    [
        ("lam", [0.1, 0.2], r"lam has shape \(2,\), expected \(1,\)$"),
        ("lam", [np.nan], r"lam holds nan at \(0,\)"),
        ("points", [[1.0]], r"points has shape \(1, 1\), expected \(n, 2\)$"),
        ("points", [[0.0, np.inf]], r"points holds inf at \(0, 1\)"),
    ],
)
def test_what_does_not_fit_residuals_is_an_error(
    argument, value, expected, heat, batch, unchecked
):
    with pytest.raises(ValueError, match=expected):
        hpx.residuals(**one(heat, batch, **{argument: value}))


@pytest.mark.parametrize("name", ["initial", "boundary"])
def test_what_does_not_fit_targets_is_an_error(name, heat, batch, unchecked):
    good = {"lam": batch.lam[0], "initial": batch.initial, "boundary": batch.boundary}
    for value, expected in (
        ([[0.0]], rf"{name} has shape \(1, 1\), expected \(n, 2\)$"),
        ([[0.0, np.nan]], rf"{name} holds nan at \(0, 1\)"),
    ):
        with pytest.raises(ValueError, match=expected):
            targets(heat, **good | {name: value})
    for lam, expected in (
        ([0.1, 0.2], r"lam has shape \(2,\), expected \(1,\)$"),
        ([np.inf], r"lam holds inf at \(0,\)"),
    ):
        with pytest.raises(ValueError, match=expected):
            targets(heat, **good | {"lam": lam})


def test_junk_for_residuals(heat, batch, throw_junk_at):
    good = one(heat, batch, weight=slope_weight("xx"))
    throw_junk_at(hpx.residuals, examples=15, **good)


def test_junk_for_targets(heat, batch, throw_junk_at):
    lam, initial, boundary = batch.lam[0], batch.initial, batch.boundary
    throw_junk_at(
        targets,
        examples=25,
        problem=heat,
        lam=lam,
        initial=initial,
        boundary=boundary,
    )


def test_junk_for_a_pinn_loss(heat, hyper, batch, throw_junk_at):
    good = {"model": hyper, "problem": heat, "batch": batch, "alpha": 1.0}
    throw_junk_at(hpx.pinn_loss, examples=12, weight=slope_weight("xx"), **good)


def test_junk_in_the_batch_of_a_pinn_loss(heat, hyper, batch, throw_junk_at):
    def loss(**batch):
        hpx.pinn_loss(hyper, heat, Batch(**batch))

    throw_junk_at(loss, examples=12, **vars(batch))


def test_junk_for_a_multistep_loss(fields, batch, windows, throw_junk_at):
    good = {"model": fields, "lam": batch.lam, "windows": windows}
    options = {"scheme": bdf(1), "dt": 0.1, "scale": jnp.ones(2)}
    throw_junk_at(hpx.multistep_loss, examples=12, **good, **options)


def test_junk_for_a_slope_weight(throw_junk_at):
    throw_junk_at(hpx.slope_weight)
    with pytest.raises(TypeError, match="names = 3, expected a str"):
        slope_weight("x", 3)
    u = hpx.Jet(jnp.zeros(2), {"x": jnp.ones(2)})
    throw_junk_at(lambda names: slope_weight(names)(u), names="x")


def test_windows_of_another_length_than_the_schemes_are_an_error(
    fields, batch, windows
):
    with pytest.raises(ValueError, match=r"windows has .* expected \(3, n, 3, d\)"):
        multistep(fields, batch.lam, windows, scheme=bdf(2), dt=0.1, scale=jnp.ones(2))


@pytest.mark.parametrize("at_once", [1, 60, 100])
def test_many_lambda_in_blocks_are_as_many_at_once(
    at_once, x64, model, heat, getkey, monkeypatch
):
    # Seven λ of 20 evaluations each: blocks of one, of three and a last of one, of
    # four and three.
    batch = hpx.Batch(
        hpx.log_uniform(heat.parameters, (7,), key=getkey()),
        hpx.uniform(heat.domain, (7, 12), key=getkey()),
        *hpx.conditions(heat, 4, 4, key=getkey()),
    )

    def value_and_gradient():
        def total(model):
            return hpx.pinn_loss(model, heat, batch).total

        return eqx.filter_jit(eqx.filter_value_and_grad(total))(model)

    expected = value_and_gradient()
    monkeypatch.setattr(devices, "_at_once", lambda: at_once)
    found = value_and_gradient()
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15)
    text = str(jax.make_jaxpr(lambda m: hpx.pinn_loss(m, heat, batch).total)(model))
    assert "scan" in text


def test_many_lambda_of_a_multistep_loss_in_blocks(
    x64, fields, batch, windows, monkeypatch
):
    options = {"scheme": adams_moulton(1), "dt": 0.1, "scale": jnp.ones(2)}

    def value_and_gradient():
        def total(fields):
            return multistep_loss(fields, batch.lam, windows, **options).total

        return eqx.filter_jit(eqx.filter_value_and_grad(total))(fields)

    expected = value_and_gradient()
    # Four windows of two states: two λ at once, and the last one alone.
    monkeypatch.setattr(devices, "_at_once", lambda: 16)
    for a, b in zip(
        *map(jax.tree.leaves, (value_and_gradient(), expected)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15)


def test_a_residual_has_the_precision_of_the_network_whatever_the_mode(heat, getkey):
    with jax.enable_x64(True):
        net = hpx.MainNetSpec((2, 4, 1), heat.domain).init(key=getkey())
    point = np.array([[0.1, 0.2]]) + 1e-12
    outside = hpx.residuals(net, heat, np.array([0.3]), point)
    with jax.enable_x64(True):
        inside = hpx.residuals(net, heat, np.array([0.3]), point)
    assert outside.dtype == np.float64
    np.testing.assert_array_equal(np.asarray(outside), np.asarray(inside))
