"""What goes through the screen is, bit for bit, what all distances by differences would give."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfumato.metrics import PRDC, distances, nearest_neighbours, neighbours, prdc, screen
from sfumato.metrics.distances import block_distances, square_blocks
from sfumato.metrics.screen import Screen

EXTREMES = ["gaussian", "far", "farther", "integers", "duplicates", "tight clusters", "collapsed", "denormal"]
EXTREMES += ["tiny", "huge", "rows of all scales", "columns of all scales", "one value", "bits"]


def features(kind: str, n: int, d: int, seed: int) -> torch.Tensor:
    """Hard cases: what product forms lose, or what makes everything a tie."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    modes = torch.randn(3, d, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    of = torch.randint(3, (n,), generator=generator)
    return {
        "gaussian": x,
        "far": x + 1e6,
        "farther": 1e6 + 1e-8 * x,
        "integers": (2 * x).round(),
        "duplicates": modes[of],
        "tight clusters": modes[of] + 1e-7 * x,
        "collapsed": torch.where(of[:, None] == 0, x, modes[0]),
        "denormal": 1e-310 * x,
        "tiny": 1e-160 * x,
        "huge": 1e153 * x,
        "rows of all scales": x * 10.0 ** (20 * torch.randn(n, 1, generator=generator, dtype=torch.float64)),
        "columns of all scales": x * 10.0 ** (20 * torch.randn(d, generator=generator, dtype=torch.float64)),
        "one value": torch.full_like(x, 0.1),
        "bits": (x > 1).double(),
    }[kind]


def brute_neighbours(x: torch.Tensor, y: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    found = block_distances(x, y)
    if y is x:
        found.fill_diagonal_(torch.inf)
    values, order = found.sort(dim=1, stable=True)
    return values[:, :k], order[:, :k]


def brute_prdc(real: torch.Tensor, fake: torch.Tensor, k: int) -> PRDC:
    real_radii, fake_radii = (brute_neighbours(x, x, k)[0][:, -1] for x in (real, fake))
    found = block_distances(real, fake)
    in_real, in_fake = found <= real_radii[:, None], found <= fake_radii
    share = [int(hit.sum()) / len(hit) for hit in (in_real.any(dim=0), in_fake.any(dim=1), in_real.any(dim=1))]
    return PRDC(share[0], share[1], int(in_real.sum()) / (k * len(fake)), share[2])


@pytest.fixture(params=["float32", "float64"])
def precision_of_the_product(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if request.param == "float64":
        monkeypatch.setattr(screen, "WIDEST", 0)
    return


@pytest.mark.usefixtures("precision_of_the_product")
@settings(max_examples=30, deadline=None)
@given(
    kinds=st.tuples(st.sampled_from(EXTREMES), st.sampled_from(EXTREMES)),
    n=st.integers(4, 40),
    m=st.integers(4, 40),
    d=st.sampled_from([1, 2, 7, 33]),
    k=st.integers(1, 3),
    seed=st.integers(0, 10**6),
    block=st.sampled_from([1, 30, 200, 2**22]),
    spare=st.sampled_from([0, 1, 16]),
)
def test_equals_distances_by_differences(
    kinds: tuple[str, str], n: int, m: int, d: int, k: int, seed: int, block: int, spare: int
) -> None:
    x, y = features(kinds[0], n, d, seed), features(kinds[1], m, d, seed + 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distances, "BLOCK", block)
        patch.setattr(neighbours, "SPARE", spare)
        assert prdc(x, y, k) == brute_prdc(x, y, k)
        for other in (None, y):
            found = nearest_neighbours(x, other, k)
            values, indices = brute_neighbours(x, x if other is None else other, k)
            assert torch.equal(found.distances, values)
            assert torch.equal(found.indices, indices)


@settings(max_examples=30, deadline=None)
@given(
    kind=st.sampled_from(EXTREMES),
    d=st.sampled_from([1, 5, 64, 700]),
    seed=st.integers(0, 10**6),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_bounds_hold(kind: str, d: int, seed: int, dtype: torch.dtype) -> None:
    x, y = features(kind, 9, d, seed), features(kind, 7, d, seed + 1)
    bounds = Screen(x, y)
    lower = bounds.lower(slice(0, 9), slice(0, 7), dtype).double()
    x_widths, y_widths = bounds.widths(dtype)
    found = block_distances(x, y)
    exact = (bounds.scale * found).square()
    assert (lower <= exact).all()
    assert ((exact <= lower + x_widths[:, None] + y_widths) | found.isinf()).all()  # where its square overflows


def test_most_pairs_are_decided_by_the_product(monkeypatch: pytest.MonkeyPatch) -> None:
    # Otherwise all of the above would hold, and nothing would have been gained.
    counted = []

    def count(x: torch.Tensor, y: torch.Tensor, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
        counted.append(len(i))
        return distances.pair_distances(x, y, i, j)

    monkeypatch.setattr(screen, "pair_distances", count)
    monkeypatch.setattr(neighbours, "pair_distances", count)
    for kind in ("gaussian", "far", "collapsed"):
        counted.clear()
        real, fake = (features(kind, 300, 32, seed) + 1e-3 * features("gaussian", 300, 32, seed + 2) for seed in (0, 1))
        prdc(real, fake, k=5)
        assert 600 <= sum(counted) <= 3 * 600, kind  # at least the radii, of 270,000 pairs


def test_products_in_less_than_float32_are_not_trusted() -> None:
    x = torch.ones(3, 2, dtype=torch.float64)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("highest")
        assert Screen(x, x).dtype == torch.float32
        torch.set_float32_matmul_precision("medium")
        assert Screen(x, x).dtype == torch.float64
    finally:
        torch.set_float32_matmul_precision(before)


def test_blocks_cover_each_pair_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "BLOCK", 9)
    x, y = torch.zeros(7, 1), torch.zeros(5, 1)
    seen, within = torch.zeros(7, 5), torch.zeros(7, 7)
    for rows, columns in square_blocks(x, y):
        seen[rows, columns] += 1
    for rows, columns in square_blocks(x, x):
        within[rows, columns] += 1
        if rows != columns:
            within[columns, rows] += 1
    assert (seen == 1).all()
    assert (within == 1).all()
