"""Reading ALF's output: recorded real runs against exact answers, and damaged files."""

from __future__ import annotations

import json
import shutil
import tarfile

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from bilayer_orchestra.averages import Averages, observables_from_raw
from bilayer_orchestra.dataset.schema import build, open_result, write_atomic
from bilayer_orchestra.engines.alf import reduce
from bilayer_orchestra.engines.alf.bins import open_segment, real_parts
from bilayer_orchestra.engines.alf.chains import read_info
from bilayer_orchestra.engines.alf.convert import pack, unpack
from bilayer_orchestra.engines.alf.installation import kinetic_energy
from bilayer_orchestra.engines.alf.projection import not_yet_ground_state
from bilayer_orchestra.engines.alf.reduce import Tails
from bilayer_orchestra.engines.alf.results import (
    ENERGIES,
    averages_from_job,
    heavy_tailed,
    quick_error,
)
from bilayer_orchestra.engines.alf.settings import ALFNumerics
from bilayer_orchestra.engines.base import Request
from bilayer_orchestra.engines.exact.fock import Sector
from bilayer_orchestra.engines.exact.ground import ground_level
from bilayer_orchestra.engines.exact.measure import measure_states
from bilayer_orchestra.engines.exact.process import thermal_averages
from bilayer_orchestra.errors import EngineError
from bilayer_orchestra.model.bilayer import OBSERVABLES as SELECTABLE
from bilayer_orchestra.terms import Canonical, GrandCanonical, Site, Terms
from bilayer_orchestra.testing.statistics import chi_squared
from tests.support.brute_force import FockSpace
from tests.support.models import make_model
from tests.support.paths import DATA

RECORDED = DATA / "alf"
TWO_POINT = ("pair", "green", "density_density", "spin_spin")


def number(x: float) -> str:
    """Format as Fortran's E25.17E3 does."""
    digits, exponent = f"{abs(x):.16e}".split("e")
    power = int(exponent) + 1 if x else 0
    return f"{'-' if x < 0 else ' '}0.{digits.replace('.', '')}E{power:+04d}"


def line(x: float) -> str:
    return f"({number(x)},{number(0.0)})\n"


def scalar_text(values, sign=1.0, imaginary=0.0) -> str:
    return "".join(
        f"{2:>10d} ({number(v)},{number(imaginary)}) {number(sign)}\n" for v in np.ravel(values)
    )


def matrix_text(matrices, background=None, sign=1.0) -> str:
    n = matrices.shape[-1]
    background = np.zeros((len(matrices), n)) if background is None else background
    parts = []
    for matrix, back in zip(matrices, background, strict=True):
        parts.append(f"{number(sign)}{n:>11d}{1:>11d}\n" + "".join(map(line, back)))
        parts.append(f"{number(0.0)} {number(0.0)}\n" + "".join(map(line, matrix.ravel())))
    return "".join(parts)


def info_text(dtau=0.1, precision=1e-13, acceptance=0.6) -> str:
    return (
        f" Orchestra: dtau = {dtau:23.16E}\n"
        f"  Precision Green  Mean, Max :    1.3E-015   {precision:E}\n"
        f"  Precision Phase, Max       :    1.3E-015\n"
        f"  Acceptance                 :   {acceptance}\n"
    )


def random_bins(rng, bins, n=3, tau=0.5):
    """Raw bins as ALF would write them for independent noise around fixed averages."""
    density = 0.8 + 0.1 * rng.standard_normal((bins, n))
    shape = (bins, n, n)
    product = density[:, :, None] * density[:, None, :] + 0.05 * rng.standard_normal(shape)
    return {
        "Kin_scal": -3 + 0.1 * rng.standard_normal(bins),
        "Pot_scal": -2 + 0.1 * rng.standard_normal(bins),
        "Part_scal": density.sum(axis=1),
        "Pair_eq": 0.2 + 0.1 * rng.standard_normal(shape),
        "Green_eq": 0.3 + 0.1 * rng.standard_normal(shape),
        "Den_eq": product,
        "SpinXY_eq": 0.1 * rng.standard_normal(shape),
        "background": density,
    }


def write_segment(path, raw, rows=slice(None), info=None, sign=1.0, imaginary=0.0):
    path.mkdir(parents=True)
    for name, values in raw.items():
        if name.endswith("_scal"):
            (path / name).write_text(scalar_text(values[rows], sign, imaginary))
        elif name.endswith("_eq"):
            back = raw["background"][rows] if name == "Den_eq" else None
            (path / name).write_text(matrix_text(values[rows], back, sign))
    (path / "info").write_text(info or info_text())


def simple_terms(n=3):
    return Terms(
        tuple(Site("P", x) for x in range(n)),
        np.zeros((n, n)),
        np.full(n, -4.0),
        np.zeros(n),
        GrandCanonical(2.0),
    )


def make_job(path, chains, dtau=(0.1,), segments=2, **options):
    """Write a job; ``chains[k][c]`` are the raw bins of time step k, chain c."""
    path.mkdir()
    (path / "job.json").write_text(json.dumps({"dtau": list(dtau)}))
    for k, step in enumerate(chains):
        for c, raw in enumerate(step):
            cuts = np.array_split(np.arange(len(raw["Kin_scal"])), segments)
            for s, rows in enumerate(cuts):
                target = path / f"dtau-{k}" / f"chain-{c}" / f"seg-{s + 1:04d}"
                step_info = {"info": info_text(dtau[k])} | options
                write_segment(target, raw, rows, **step_info)
    return path


@pytest.fixture
def job(tmp_path):
    rng = np.random.default_rng(0)
    return make_job(tmp_path / "job", [[random_bins(rng, 40) for _ in range(2)]])


def read(directory, terms=None, observables=SELECTABLE, **numerics):
    numerics = ALFNumerics(**numerics)
    request = Request(terms or simple_terms(), observables, numerics, "a job")
    return averages_from_job(directory, request)


def recorded(name, tmp_path):
    with tarfile.open(RECORDED / f"{name}.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    spec = json.loads((tmp_path / name / "job.json").read_text())
    return tmp_path / name, Terms.from_dict(spec["terms"])


def exact_values(terms):
    if isinstance(terms.state, Canonical):
        sector = Sector(terms, terms.state.n_up, terms.state.n_down)
        raw = measure_states(sector, ground_level(sector, 1).states)
    else:
        raw = thermal_averages(terms)
        del raw["log_partition"]
    raw["double_occupancy"] = raw["pair"].diagonal().copy()
    return observables_from_raw(raw, terms)


# ---- real runs against exact diagonalization -------------------------------------------------


@pytest.mark.parametrize("name", ["thermal", "projector"])
def test_recorded_run_agrees_with_exact_diagonalization(name, tmp_path):
    directory, terms = recorded(name, tmp_path)
    found = read(directory, terms)
    expected = exact_values(terms)
    assert set(expected) <= set(found.values)
    for key, value in expected.items():
        score = (found.values[key] - value) / found.stderr[key]
        assert np.abs(score).max() < 4, key
        # small enough to notice a wrong convention
        assert found.stderr[key].max() < 0.03 * max(0.1, np.abs(value).max()), key
    for key in TWO_POINT:
        upper = np.triu_indices(terms.n_sites)
        plane = (0,) if key == "green" else ()
        difference = (found.values[key] - expected[key])[plane][upper]
        deviations = found.deviations[key][(slice(None), *plane)][:, upper[0], upper[1]]
        degrees = found.attributes[key]["covariance_degrees_of_freedom"]
        assert 0.1 < chi_squared(difference, deviations, degrees) < 2.4, key


def test_recorded_run_is_converged_and_says_what_it_did(tmp_path):
    directory, terms = recorded("thermal", tmp_path)
    found = read(directory, terms)
    assert found.converged, found.reason
    assert "warm-up" in found.reason
    assert "extrapolated in dtau^2 from 0.1, 0.05" in found.reason
    assert found.diagnostics["chains"] == 2
    assert found.diagnostics["average_sign"] == 1.0
    assert found.diagnostics["precision"] < 1e-11
    assert 0.5 < found.diagnostics["acceptance"] < 0.8
    assert 96 > found.diagnostics["bins"] >= 96 - 4 * found.diagnostics["warmup_bins"]


def test_the_correction_is_that_of_the_smallest_step_and_a_quarter_of_it_may_be_left(tmp_path):
    directory, terms = recorded("thermal", tmp_path)
    both = read(directory, terms)
    shutil.move(directory / "dtau-1", directory / "dtau-0-new")
    shutil.rmtree(directory / "dtau-0")
    shutil.move(directory / "dtau-0-new", directory / "dtau-0")
    (directory / "job.json").write_text(json.dumps({"dtau": [0.05]}))
    smallest = read(directory, terms)
    for name, bias in both.bias.items():
        correction = smallest.values[name] - both.values[name]
        if not name.endswith("energy"):  # of the three together, below
            size = np.abs(correction / 4)
            least = 0.5 * np.sqrt(np.mean(size**2))
            np.testing.assert_allclose(bias, np.maximum(size, least), atol=1e-10)
        largest = both.attributes[name]["trotter_correction"]
        assert largest == pytest.approx(np.abs(correction).max(), abs=1e-12)
        assert np.isnan(smallest.bias[name]).all()
    corrections = [both.attributes[name]["trotter_correction"] for name in ENERGIES]
    least = 0.5 * np.sqrt(np.mean(np.square(corrections))) / 4
    for name, correction in zip(ENERGIES, corrections, strict=True):
        assert both.bias[name] == pytest.approx(max(correction / 4, least), abs=1e-10)


def exact_susceptibility(terms):
    """Spectral sum of the integral of <Delta+_i(tau) Delta_j(0)> over tau from 0 to beta."""
    space, n = FockSpace(terms.n_sites), terms.n_sites
    hamiltonian = sum(
        (terms.one_body[i, j] - (i == j) * terms.chemical_potential[i])
        * (space.c[i][s].T @ space.c[j][s])
        for i in range(n)
        for j in range(n)
        for s in (0, 1)
    ) + sum(terms.interaction[i] * (space.n[i][0] @ space.n[i][1]) for i in range(n))
    energies, states = np.linalg.eigh(hamiltonian.toarray())
    beta = terms.state.beta
    boltzmann = np.exp(-beta * (energies - energies[0]))
    gap = energies[None, :] - energies[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        kernel = (boltzmann[:, None] - boltzmann[None, :]) / gap
    kernel = np.where(np.abs(gap) < 1e-9, beta * boltzmann[:, None], kernel) / boltzmann.sum()
    pairs = [states.T @ (space.c[i][1] @ space.c[i][0]) @ states for i in range(n)]
    return np.array([[np.sum(kernel * a.T * b.T) for b in pairs] for a in pairs])


def test_pair_susceptibility_agrees_with_its_spectral_sum(tmp_path):
    directory, terms = recorded("thermal", tmp_path)
    found = read(directory, terms, pair_susceptibility=True)
    expected = exact_susceptibility(terms)
    error = found.stderr["pair_susceptibility"]
    assert np.abs((found.values["pair_susceptibility"] - expected) / error).max() < 4
    assert error.max() < 0.05 * expected.max()
    assert "pair_susceptibility" not in read(directory, terms).values


def test_a_new_build_with_hdf5_is_tried_with_what_reads_it(tmp_path):
    """No other library than the one that reads the bins is needed."""
    hdf5, _ = recorded("hdf5", tmp_path)
    segment = hdf5 / "dtau-0/chain-0/seg-0001"
    kinetic = next(open_segment(segment, 4).chunks("Kin_scal")).values.mean()
    assert kinetic_energy(segment, 4) == pytest.approx(kinetic)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(EngineError, match="does not write what the Orchestra Hamiltonian writes"):
        kinetic_energy(tmp_path / "nothing", 4)


def test_text_and_hdf5_hold_the_same_bins(tmp_path):
    hdf5, terms = recorded("hdf5", tmp_path)
    text, _ = recorded("thermal", tmp_path)
    for c in (0, 1):
        place = f"dtau-0/chain-{c}/seg-0001"
        a, b = open_segment(text / place, 4), open_segment(hdf5 / place, 4)
        assert a.bins == b.bins == 12
        matrices = ("Pair_eq", "Green_eq", "Den_eq", "SpinXY_eq", "PairSus_eq")
        for name in ("Kin_scal", "Pot_scal", "Part_scal", *matrices):
            left, right = next(a.chunks(name)), next(b.chunks(name))
            assert len(left.sign) == 12
            for one, other in zip(left, right, strict=True):
                # the HDF5 and the LOG build differ in rounding
                np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14)
    for chain in (0, 1):
        shutil.rmtree(text / f"dtau-0/chain-{chain}/seg-0002")
    (text / "job.json").write_text(json.dumps({"dtau": [0.1]}))
    a, b = read(text, terms), read(hdf5, terms)
    for name in a.values:
        np.testing.assert_allclose(a.values[name], b.values[name], rtol=1e-10, atol=1e-13)
        np.testing.assert_allclose(a.stderr[name], b.stderr[name], rtol=1e-8, atol=1e-13)


# ---- decoding and conversion -----------------------------------------------------------------


@settings(max_examples=200)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False, width=64), min_size=1))
def test_numbers_are_decoded_to_the_last_place(values):
    values = [v if 1e-290 < abs(v) < 1e307 else 0.0 for v in values]
    raw = np.frombuffer("".join(map(line, values)).encode(), np.uint8)
    decoded, good = real_parts(raw)
    assert good.all()
    np.testing.assert_allclose(decoded, values, rtol=4.5e-16, atol=0)


@given(st.integers(0, 53), st.integers(0, 255))
def test_a_damaged_byte_never_passes_for_another_form(position, byte):
    original = line(-0.123456789012345678)
    damaged = bytearray(original.encode())
    damaged[position] = byte
    (value,), (good,) = real_parts(np.frombuffer(bytes(damaged), np.uint8))
    if good:  # then it is a number in this form
        assert value == pytest.approx(float(damaged[1:26].decode()), rel=1e-15)
        float(damaged[27:52].decode())


def test_packing_symmetrizes():
    m = np.random.default_rng(0).standard_normal((5, 4, 4))
    np.testing.assert_allclose(unpack(pack(m)), (m + m.transpose(0, 2, 1)) / 2)


def test_conversions_one_by_one(job):
    """Averages of noise-free sums, computed here directly from what was written."""
    found = read(job)
    raws = [random_bins(rng, 40) for rng in [np.random.default_rng(0)] for _ in range(2)]
    dropped = (80 - found.diagnostics["bins"]) // 2

    def mean(name):
        return np.concatenate([raw[name][dropped:] for raw in raws]).mean(axis=0)

    green, pair, product = mean("Green_eq"), mean("Pair_eq"), mean("Den_eq")
    spin, density = mean("SpinXY_eq"), mean("background")
    v = found.values
    assert v["kinetic_energy"] == pytest.approx(mean("Kin_scal"))
    assert v["energy"] == pytest.approx(mean("Kin_scal") + mean("Pot_scal"))
    for s in (0, 1):
        np.testing.assert_allclose(v["green"][s], (green + green.T) / 2)
        np.testing.assert_allclose(v["density"][s], np.diag(green))
    np.testing.assert_allclose(v["double_occupancy"], np.diag(pair))
    np.testing.assert_allclose(v["pair"], (pair + pair.T) / 2)
    np.testing.assert_allclose(v["spin_spin"], (spin + spin.T) / 2)
    connected = (product + product.T) / 2 - np.outer(density, density)
    cov_of_mean = np.cov(np.concatenate([r["background"][dropped:] for r in raws]).T)
    cov_of_mean /= found.diagnostics["bins"]
    np.testing.assert_allclose(  # the product of two noisy means is biased by their covariance
        v["density_density"], connected + cov_of_mean, atol=0.2 * np.abs(cov_of_mean).max()
    )


def test_densities_from_the_density_file_alone(job):
    for path in job.rglob("*"):
        if path.name in ("Green_eq", "Pair_eq", "SpinXY_eq"):
            path.unlink()
    found = read(job, observables=("density", "double_occupancy"))
    assert found.values["density"].mean() == pytest.approx(0.4, abs=0.01)  # half of 0.8
    # <n_i n_i> = <n_i> + 2 <n_up n_dn> holds for real bins; here it defines the number
    raws = [random_bins(rng, 40) for rng in [np.random.default_rng(0)] for _ in range(2)]
    dropped = (80 - found.diagnostics["bins"]) // 2
    used = [np.einsum("bii->bi", r["Den_eq"])[dropped:] - r["background"][dropped:] for r in raws]
    np.testing.assert_allclose(
        found.values["double_occupancy"], np.concatenate(used).mean(axis=0) / 2
    )
    with pytest.raises(EngineError, match="Pair_eq"):
        read(job, observables=("pair",))


def test_a_sign_is_divided_out(tmp_path):
    rng = np.random.default_rng(0)
    raw = [[random_bins(rng, 40) for _ in range(2)]]
    half = [[{k: v * 0.5 for k, v in chain.items()} for chain in raw[0]]]
    plain = read(make_job(tmp_path / "a", raw))
    signed = read(make_job(tmp_path / "b", half, sign=0.5))
    for name in plain.values:
        np.testing.assert_allclose(signed.values[name], plain.values[name], rtol=1e-10)
    assert not signed.converged
    assert "average sign 0.5" in signed.reason


# ---- damaged, incomplete and inconsistent output ---------------------------------------------


def first(job, name, segment="seg-0002"):
    return job / "dtau-0" / "chain-1" / segment / name


def overwrite(path, offset, text):
    with path.open("r+b") as stream:
        stream.seek(offset)
        stream.write(text)


RECORD = 48 + 54 * 3 + 52 + 54 * 9  # one bin of three sites


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:-100]), r"Pair_eq: bin 20 is incomplete"),
        (lambda p: p.write_bytes(p.read_bytes()[:-RECORD]), r"Pair_eq holds 19 bins"),
        (lambda p: p.write_bytes(p.read_bytes() * 2), r"holds 20 bins, .* up to 40"),
        (lambda p: p.unlink(), r"did not write Pair_eq"),
        (lambda p: overwrite(p, 3 * RECORD + 280, b"x"), r"Pair_eq: bin 4, line .* damaged"),
        (lambda p: overwrite(p, 3 * RECORD + 300, b"NaN"), r"Pair_eq: bin 4, line"),
        (lambda p: overwrite(p, 7 * RECORD, b"*" * 20), r"Pair_eq: bin 8, line 1"),
        (lambda p: overwrite(p, 5 * RECORD + 30, b"   7"), r"Pair_eq: bin 6, line 1"),
        (lambda p: overwrite(p, 2 * RECORD + 48 + 54 * 3 + 5, b"7"), r"Pair_eq: bin 3, line 1"),
        (lambda p: overwrite(p, 4 * RECORD, number(-1.0).encode()), r"another sign"),
        (lambda p: overwrite(p, 6 * RECORD + 60, b"\0\0\0"), r"Pair_eq: bin 7, line 2"),
        (
            lambda p: p.write_text(matrix_text(np.zeros((20, 4, 4)))),
            r"Pair_eq holds matrices of 4 sites, the model has 3",
        ),
    ],
)
def test_a_damaged_matrix_file_is_one_clear_error(job, damage, message):
    damage(first(job, "Pair_eq"))
    with pytest.raises(EngineError, match=message):
        read(job)


def test_nan_is_called_by_its_name(job):
    path = first(job, "Green_eq")
    text = path.read_text()
    where = text.rindex("( 0.")
    path.write_text(text[:where] + f"({'NaN':>25}" + text[where + 26 :])
    with pytest.raises(EngineError, match=r"Green_eq: bin 20, line 14 of the bin is not a finite"):
        read(job)


def test_a_damaged_scalar_file_is_one_clear_error(job):
    overwrite(first(job, "Kin_scal"), 91 * 4 + 20, b"?")
    with pytest.raises(EngineError, match="Kin_scal: bin 5"):
        read(job)


def test_a_damaged_hdf5_file_is_one_clear_error(tmp_path):
    directory, terms = recorded("hdf5", tmp_path)
    path = directory / "dtau-0/chain-1/seg-0001/data.h5"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(EngineError, match=r"chain-1/seg-0001/data.h5 is damaged or cut"):
        read(directory, terms)
    path.write_bytes(whole)
    with pytest.raises(EngineError, match="the model has 3 sites"):
        read(directory)


def test_damaged_bytes_inside_hdf5_never_give_other_numbers(tmp_path):
    directory, terms = recorded("hdf5", tmp_path)
    expected = read(directory, terms).values
    path = directory / "dtau-0/chain-0/seg-0001/data.h5"
    whole = path.read_bytes()
    errors = 0
    rng = np.random.default_rng(0)
    for position in rng.integers(0, len(whole) - 8, 25):
        damaged = bytearray(whole)
        damaged[position : position + 8] = rng.bytes(8)
        path.write_bytes(damaged)
        try:
            found = read(directory, terms).values
        except EngineError:
            errors += 1
            continue
        for name, value in expected.items():  # the bytes were not used
            np.testing.assert_allclose(found[name], value, rtol=1e-12, atol=1e-14)
    assert errors > 0


def test_missing_pieces_are_named(job):
    with pytest.raises(EngineError, match=r"job\.json"):
        read(job.parent / "nothing")
    first(job, "info").rename(first(job, "away"))
    with pytest.raises(EngineError, match="info is missing"):
        read(job)
    first(job, "away").rename(first(job, "info"))
    shutil.rmtree(first(job, ".", "seg-0001"))
    with pytest.raises(EngineError, match="segment 1 is missing"):
        read(job)


def test_a_segment_of_another_time_step_is_refused(job):
    first(job, "info").write_text(info_text(dtau=0.2))
    with pytest.raises(EngineError, match=r"dtau = 0\.2"):
        read(job)


def test_repeated_bins_are_refused(job):
    shutil.rmtree(first(job, ".", "seg-0002"))
    shutil.copytree(first(job, ".", "seg-0001"), first(job, ".", "seg-0002"))
    with pytest.raises(EngineError, match="repeats the bins"):
        read(job)


def test_incomplete_segments_are_ignored(job):
    before = read(job)
    part = first(job, ".", "seg-0003.part")
    part.mkdir()
    (part / "Pair_eq").write_text("garbage")
    (job / "dtau-0" / "chain-2").mkdir()
    after = read(job)
    np.testing.assert_array_equal(before.values["pair"], after.values["pair"])


def test_nothing_complete_is_an_error(tmp_path):
    path = make_job(tmp_path / "job", [[]])
    (path / "dtau-0" / "chain-0" / "seg-0001.part").mkdir(parents=True)
    with pytest.raises(EngineError, match="no complete segment"):
        read(path)


# ---- the verdict -----------------------------------------------------------------------------


def job_with(tmp_path, change=lambda raw: raw, bins=60, chains=2, **options):
    rng = np.random.default_rng(1)
    raws = [[change(random_bins(rng, bins)) for _ in range(chains)]]
    return make_job(tmp_path / "job", raws, **options)


def test_targets_decide(tmp_path):
    path = job_with(tmp_path)
    error = float(read(path).stderr["pair"].max())
    met = read(path, target_stderr={"pair": error * 1.01})
    assert met.converged
    assert "within target" in met.reason
    missed = read(path, target_stderr={"pair": error * 0.99})
    assert not missed.converged
    assert "above target" in missed.reason


def outlier(raw):
    raw["Pair_eq"][40] += 50.0
    return raw


def constant_shift():
    shifts = iter([0.0, 0.5])

    def change(raw):
        raw["Green_eq"] += next(shifts)
        return raw

    return change


def drifting(raw):
    raw["SpinXY_eq"] += np.linspace(0, 2, len(raw["SpinXY_eq"]))[:, None, None]
    return raw


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda raw: raw, {"info": info_text(precision=1e-3)}, "precision lost"),
        (lambda raw: raw, {"info": info_text(precision=float("nan"))}, "precision lost"),
        (lambda raw: raw, {"info": info_text(acceptance=0.01)}, "acceptance 0.01"),
        (lambda raw: raw, {"bins": 8}, "independent bins"),
        (lambda raw: raw, {"imaginary": 0.1}, "complex"),
        (outlier, {}, "heavy-tailed estimator Pair_eq"),
        (constant_shift(), {}, "chains disagree in"),
        (drifting, {}, "spin_spin"),
    ],
)
def test_what_cannot_be_trusted_is_not_converged(tmp_path, change, options, message):
    found = read(job_with(tmp_path, change, **options))
    assert not found.converged
    assert message in found.reason


@pytest.mark.parametrize(
    ("draw", "expected"),
    [
        (lambda rng: rng.standard_normal((300, 10)), 0.0),
        (lambda rng: rng.exponential(size=(300, 10)), 0.0),
        (lambda rng: rng.pareto(1.3, (300, 10)), 1.0),  # infinite variance
    ],
)
def test_heavy_tails_are_told_from_light_ones(draw, expected):
    rng = np.random.default_rng(4)
    found = []
    for _ in range(100):
        x = draw(rng)
        d = x - x.mean(axis=0)
        found.append(heavy_tailed(Tails(300, np.mean(d**2, axis=0), np.mean(d**4, axis=0))))
    assert np.mean([f is not None for f in found]) == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(("size", "converged"), [(1.0, True), (50.0, False)])
def test_a_rare_outlier_counts_by_its_part_in_the_limit(tmp_path, size, converged):
    """The coarsest of three steps has the weight 1/45: its errors matter only if they are large."""
    rng = np.random.default_rng(5)
    chains = [[random_bins(rng, 60) for _ in range(2)] for _ in range(3)]
    chains[0][0]["Pair_eq"][40] += size
    alone = read(make_job(tmp_path / "alone", chains[:1]))
    assert "heavy-tailed estimator Pair_eq" in alone.reason
    found = read(make_job(tmp_path / "three", chains, dtau=(0.4, 0.2, 0.1)))
    assert found.converged is converged, found.reason
    assert converged or "dtau = 0.4: heavy-tailed estimator Pair_eq" in found.reason


def test_the_worst_segment_counts(tmp_path):
    bad, good, silent = (tmp_path / name for name in ("bad", "good", "silent"))
    for segment, text in (
        (bad, info_text(precision=float("nan"), acceptance=0.3)),
        (good, info_text(precision=1e-12, acceptance=0.2) + info_text()),
        (silent, ""),
    ):
        segment.mkdir()
        (segment / "info").write_text(text)
    assert read_info([good], 0.1) == read_info([good, silent]) == (1e-12, 0.2)
    assert read_info([bad, good], 0.1) == read_info([good, bad], 0.1) == (np.inf, 0.2)
    assert np.isnan(read_info([silent])).all()


def test_a_good_run_is_converged(tmp_path):
    found = read(job_with(tmp_path))
    assert found.converged, found.reason
    assert "not estimated" in found.reason  # one time step


def test_warm_up_is_dropped_and_stated(tmp_path):
    def transient(raw):
        raw["Kin_scal"][:10] += 3 * np.exp(-np.arange(10) / 3)
        return raw

    found = read(job_with(tmp_path, transient, bins=200))
    assert 5 <= found.diagnostics["warmup_bins"] <= 40
    assert f"after {found.diagnostics['warmup_bins']} of warm-up" in found.reason
    assert found.values["kinetic_energy"] == pytest.approx(-3, abs=0.03)


@pytest.mark.parametrize(
    ("dtau", "power", "reason"),
    [
        ((0.4, 0.2, 0.1), 4, "too coarse to extrapolate interaction_energy: the dtau^4"),
        ((0.4, 0.3, 0.2, 0.1), 8, "no parabola in dtau^2"),
    ],
)
def test_what_is_no_parabola_is_noticed(tmp_path, dtau, power, reason):
    rng = np.random.default_rng(2)
    chains = []
    for step in dtau:
        raw = [random_bins(rng, 60) for _ in range(2)]
        for one in raw:
            one["Pot_scal"] += 30 * (step / 0.4) ** power
        chains.append(raw)
    found = read(make_job(tmp_path / "job", chains, dtau=dtau))
    assert not found.converged
    assert reason in found.reason
    assert "kinetic_energy" not in found.reason
    if len(dtau) > 3:
        assert found.attributes["interaction_energy"]["trotter_chi2_per_dof"] > 4
        assert found.attributes["kinetic_energy"]["trotter_chi2_per_dof"] < 4


# ---- the projected state ----------------------------------------------------------------------


def projected(t_perp: float, number: int, length: int, **layers):
    """What an ideal projector run says of itself: no noise, no discretization."""
    terms = make_model({"n_up": number, "n_down": number}, length, t_perp=t_perp, **layers).terms()
    nothing = Averages({}, stderr={"pair": np.zeros((terms.n_sites, terms.n_sites))})
    return not_yet_ground_state(terms, 20.0, nothing)


@pytest.mark.parametrize(
    ("length", "number", "states", "error"), [(3, 2, 3, 2 / 3), (4, 3, 4, 3 / 4)]
)
def test_the_projected_state_of_a_degenerate_level_is_not_determined(length, number, states, error):
    """Pairs on disconnected sites: the trial state chooses which, whatever the projection time."""
    problem, errors = projected(0.0, number, length)
    assert f"the lowest {states} levels are one" in problem
    assert "correlators are not determined" in problem
    # from what exact diagonalization reports: the average over the level
    assert np.abs(errors["pair"]).max() == pytest.approx(error, abs=1e-6)
    assert errors["energy"] == pytest.approx(0, abs=1e-9)


def test_a_level_with_too_many_states_loses_no_result():
    problem, errors = projected(0.0, 4, 4, P={"interaction": 0.0})
    assert "more than 24 states" in problem
    assert errors == {}


def test_a_projection_that_reached_the_ground_state_is_not_doubted():
    problem, errors = projected(0.8, 2, 2)
    assert problem is None
    assert np.abs(errors["pair"]).max() < 1e-7


# ---- long runs, live errors, the dataset -----------------------------------------------------


def test_long_runs_are_blocked_on_the_fly_with_the_same_answer(tmp_path, monkeypatch):
    path = job_with(tmp_path, bins=150)
    fine = read(path)
    monkeypatch.setattr(reduce, "MAX_BASE_BLOCKS", 60)
    monkeypatch.setattr("bilayer_orchestra.engines.alf.bins.CHUNK_BYTES", 4000)
    coarse = read(path)
    data = reduce.reduce_step(path / "dtau-0", 0.1, 3, SELECTABLE)
    assert data.length > 1
    assert len(data.chains[0]["Pair_eq"]) == len(data.chains[0]["sign"]) <= 30
    rng = np.random.default_rng(1)
    bins = [pack(random_bins(rng, 150)["Pair_eq"])[drop:] for drop in data.dropped]
    deviation = np.concatenate(bins) - np.concatenate(bins).mean(axis=0)
    tails = data.tails["Pair_eq"]
    assert tails.count == len(deviation)
    np.testing.assert_allclose(tails.variance, np.mean(deviation**2, axis=0))
    np.testing.assert_allclose(tails.fourth, np.mean(deviation**4, axis=0))
    for name, value in fine.values.items():
        np.testing.assert_allclose(coarse.values[name], value, atol=3 * fine.stderr[name].max())
        ratio = np.sqrt(np.mean(coarse.stderr[name] ** 2) / np.mean(fine.stderr[name] ** 2))
        assert 0.6 < ratio < 1.6
    assert coarse.diagnostics["autocorrelation_time"] < 1.5


@pytest.mark.parametrize("name", ["density_density", "energy", "green"])
def test_live_error_is_that_of_what_is_there(tmp_path, name):
    rng = np.random.default_rng(3)
    path = make_job(tmp_path / "job", [[random_bins(rng, 60) for _ in range(2)]], segments=3)
    late = path / "dtau-0" / "chain-1" / "seg-0003"
    final = float(read(path).stderr[name].max())
    late.rename(late.with_suffix(".part"))
    before = quick_error(path, 3, name)
    late.with_suffix(".part").rename(late)
    assert before != quick_error(path, 3, name)
    for error in (before, quick_error(path, 3, name)):
        assert error == pytest.approx(final, rel=0.4)


def test_live_error_of_too_little_data_is_nan(tmp_path):
    """A small error by accident must not stop a run."""
    raw = random_bins(np.random.default_rng(0), 20)
    path = make_job(tmp_path / "job", [[raw]], segments=1)
    assert np.isnan(quick_error(path, 3, "pair"))


@pytest.mark.parametrize("bins", [0, 3])
def test_live_error_of_nearly_nothing_is_refused(tmp_path, bins):
    raw = random_bins(np.random.default_rng(0), bins)
    path = make_job(tmp_path / "job", [[raw] if bins else []], segments=1)
    with pytest.raises(EngineError):
        quick_error(path, 3, "pair")


def test_the_dataset_keeps_the_covariance(tmp_path):
    directory, terms = recorded("thermal", tmp_path)
    found = read(directory, terms, pair_susceptibility=True)
    dataset = build(terms, found, ("pair", "density"))
    dataset.attrs["orchestra_schema"] = 1
    write_atomic(dataset, tmp_path / "result.nc")
    dataset = open_result(tmp_path / "result.nc")
    assert {"pair_susceptibility", "pair_susceptibility_stderr"} <= set(dataset.data_vars)
    assert "green" not in dataset
    rebuilt = np.sqrt((dataset.pair_deviation**2).sum("block"))
    xr.testing.assert_allclose(rebuilt, dataset.pair_stderr, rtol=1e-5)
    assert dataset.pair.attrs["autocorrelation_time_bins"] > 0.3
    # two observables covary: energy and pairs on the same blocks
    joint = (dataset.pair_deviation * dataset.energy_deviation).sum("block")
    assert (np.abs(joint) <= dataset.pair_stderr * dataset.energy_stderr * 1.001).all()


def test_a_chain_that_hardly_began_is_left_out(tmp_path):
    rng = np.random.default_rng(0)
    raws = [random_bins(rng, 100) for _ in range(3)]
    raws[2] = {name: values[:3] for name, values in raws[2].items()}
    for raw in raws[:2]:
        raw["Kin_scal"][:5] += 5.0  # the short chain must not hide the warm-up
    found = read(make_job(tmp_path / "job", [raws], segments=1))
    assert found.diagnostics["chains"] == 2
    assert found.diagnostics["warmup_bins"] >= 5


def test_few_configurations_may_repeat_by_accident(tmp_path):
    rng = np.random.default_rng(0)
    raws = [random_bins(rng, 80) for _ in range(2)]
    for raw in raws:
        raw["Kin_scal"] = rng.choice([-1.0, -1.1], 80)
    read(make_job(tmp_path / "job", [raws], segments=4))
