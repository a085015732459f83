"""What is installed is enough: the wheel alone, built from the sdist."""

import pathlib
import subprocess
import sys
import sysconfig
import tarfile
import zipfile

import jax.numpy as jnp
import pytest

import hyperpinn_eqx as hpx

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[1]
PACKAGE = ROOT / "hyperpinn_eqx"
USE = """
import pathlib, sys
import jax.numpy as jnp
import hyperpinn_eqx as hpx

assert pathlib.Path(hpx.__file__).is_relative_to(sys.prefix), hpx.__file__
models = {name: hpx.load_pretrained(name) for name in hpx.pretrained_names()}
model = models["burgers-hyperpinn"]
figure = hpx.live_figure(model, hpx.Burgers())
assert "<script" in figure.html
print(hpx.__version__, len(models), float(model(0.01)(jnp.array([0.5, -0.25]))))
"""


def run(*command, cwd):
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel that is built from nothing but the sdist, as installers do."""
    folder = tmp_path_factory.mktemp("dist")
    build = (sys.executable, "-m", "hatchling", "build", "-d", str(folder), "-t")
    run(*build, "sdist", cwd=ROOT)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "source", filter="data")
    run(*build, "wheel", cwd=folder / "source" / sdist.name.removesuffix(".tar.gz"))
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    files = {path for path in PACKAGE.rglob("*") if path.is_file()}
    assert names == {
        path.relative_to(ROOT).as_posix()
        for path in files
        if "__pycache__" not in path.parts
    }


def test_the_wheel_alone_loads_evaluates_and_shows_every_model(wheel, tmp_path):
    run(sys.executable, "-m", "venv", "--without-pip", "env", cwd=tmp_path)
    python = tmp_path / "env" / "bin" / "python"
    # It sees the libraries that are installed here. A path that is added like this is
    # not searched for the link to the source tree of an editable installation.
    place = sysconfig.get_path("purelib", "venv", {"base": str(tmp_path / "env")})
    libraries = [path for path in sys.path if path.endswith("-packages")]
    pathlib.Path(place, "libraries.pth").write_text("\n".join(libraries))
    install = ("-m", "pip", "--python", str(python), "install", "--quiet")
    run(sys.executable, *install, "--no-deps", "--no-index", str(wheel), cwd=tmp_path)

    version, n_models, value = run(str(python), "-I", "-c", USE, cwd=tmp_path).split()
    assert (version, int(n_models)) == (hpx.__version__, len(hpx.pretrained_names()))
    here = hpx.load_pretrained("burgers-hyperpinn")(0.01)(jnp.array([0.5, -0.25]))
    assert float(value) == pytest.approx(float(here), rel=1e-5)
