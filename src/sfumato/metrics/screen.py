"""Bounds on squared distances at the price of a matrix product, so that few pairs need their distance by differences.

With rows centred and scaled to a_i = s (x_i - c), b_j = s (y_j - c), any centre c and s a power of two that makes all
|s x| at most 1, squared distances are computed as q_ij = |a_i|² + |b_j|² - 2 a_i·b_j. Let d_ij be the distance that
`distances` gives, u the unit roundoff of the product's precision (2^-24 or 2^-53) and v = 2^-53. Then

    |q_ij - s² d_ij²| ≤ e (|a_i|² + |b_j|²) + f,   e = 1.25 (D + 16) u + 8 (D + 16) v,   f = D (2^-110 + 2^-1020 s²).

The product's error is at most D u / (1 - D u) |a_i||b_j| in whatever order it is summed (Higham 2002, section 3.1), and
2 |a_i||b_j| ≤ |a_i|² + |b_j|²; rounding a and b to the precision, and q, makes D + 16 of D, 1.25 covers the denominator
up to D = 2^20. Rounding in the norms, in centring and in d itself is what v pays for. f covers underflow. So bad
centring or scaling costs speed, never a result: what the bounds leave open is computed by differences.

A product in float32 is twice as fast as one in float64. It is used on a CPU unless torch is told to compute float32
products in less (`torch.set_float32_matmul_precision`); elsewhere, as on a GPU with TF32, products are in float64.
"""

from __future__ import annotations

import math
from copy import copy

import torch

from sfumato.metrics import distances
from sfumato.metrics.distances import pair_distances, slices

WIDEST = 2**20  # dimensions up to which the bound of a float32 product holds


class Screen:
    """Bounds on the distances between the rows of two sets.

    Args:
        x: (N, D), float64, finite.
        y: (M, D), float64, finite; `x` itself for the distances within one set.
    """

    def __init__(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.x, self.y = x, y
        largest = max(abs(float(value)) for part in (x, y) for value in part.aminmax())
        self.scale = 2.0 ** -min(max(math.frexp(largest)[1], -1000), 1022)
        middle = (x.mean(dim=0) / 2 + y.mean(dim=0) / 2) * self.scale
        self.centre = torch.nan_to_num(middle, 0, 0, 0)
        self.floor = min(x.shape[1] * (2.0**-110 + 2.0**-1020 * self.scale * self.scale), 2.0**100)
        self.dtype = torch.float32 if _single_is_single(x) else torch.float64
        self._rounded_x, self.x_norms = self._prepare(x)
        self._rounded_y, self.y_norms = (self._rounded_x, self.x_norms) if y is x else self._prepare(y)

    def _prepare(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows (N, D), centred, scaled and rounded to the screen's precision, and their squared norms (N,), float64."""
        rounded, norms = torch.empty_like(x, dtype=self.dtype), x.new_empty(len(x))
        for part in slices(len(x), max(1, distances.BLOCK // x.shape[1])):
            centred = self._centred(x[part])
            rounded[part], norms[part] = centred, torch.linalg.vector_norm(centred, dim=1).square()
        return rounded, norms

    def _centred(self, x: torch.Tensor) -> torch.Tensor:
        return torch.add(-self.centre, x, alpha=self.scale)

    def of_x(self) -> Screen:
        """The screen of the distances within `x`, prepared already."""
        one = copy(self)
        one.y, one._rounded_y, one.y_norms = self.x, self._rounded_x, self.x_norms
        return one

    def of_y(self) -> Screen:
        """The screen of the distances within `y`, prepared already."""
        one = copy(self)
        one.x, one._rounded_x, one.x_norms = self.y, self._rounded_y, self.y_norms
        return one

    def epsilon(self, dtype: torch.dtype) -> float:
        """e of the bound, for a product in this precision."""
        size = self.x.shape[1] + 16
        return 1.25 * size * torch.finfo(dtype).eps / 2 + 8 * size * 2.0**-53

    def lower(self, rows: slice | torch.Tensor, columns: slice, dtype: torch.dtype | None = None) -> torch.Tensor:
        """Lower bounds (b, m) on the scaled squared distances s² d², in `dtype`, by default that of the screen."""
        dtype = dtype or self.dtype
        if dtype == self.dtype:
            a, b = self._rounded_x[rows], self._rounded_y[columns]
        else:
            a, b = self._centred(self.x[rows]).to(dtype), self._centred(self.y[columns]).to(dtype)
        shrink = 1 - self.epsilon(dtype)
        bounds = (a @ b.T).mul_(-2)
        bounds += (shrink * self.y_norms[columns] - self.floor).to(dtype)
        return bounds.add_((shrink * self.x_norms[rows]).to(dtype)[:, None])

    def widths(self, dtype: torch.dtype | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """How far upper bounds lie above lower ones: w_x[i] + w_y[j], each (N,) or (M,), float64."""
        epsilon = self.epsilon(dtype or self.dtype)
        return 2 * epsilon * self.x_norms + self.floor, 2 * epsilon * self.y_norms + self.floor

    def within(self, rows: slice, columns: slice, lower: torch.Tensor, radii: torch.Tensor) -> torch.Tensor:
        """Which pairs of a block are at most a radius apart, as distances by differences would say: (b, m), bool.

        Args:
            rows: of `x`.
            columns: of `y`.
            lower: what `self.lower` says of the block.
            radii: float64, (b, 1) or (1, m).
        """
        limits = (self.scale * radii).square()
        inside = lower <= (limits * (1 + 2.0**-22) + 2.0**-110).to(lower.dtype)
        i, j = inside.nonzero(as_tuple=True)
        x_widths, y_widths = self.widths(lower.dtype)
        upper = lower[i, j].double() + x_widths[rows][i] + y_widths[columns][j]
        is_open = ~(upper <= (limits * (1 - 2.0**-50)).expand(inside.shape)[i, j])
        i, j = i[is_open], j[is_open]
        if lower.dtype != torch.float64 and len(i) > inside.numel() // 32:
            return self.within(rows, columns, self.lower(rows, columns, torch.float64), radii)
        if len(i):
            found = pair_distances(self.x[rows], self.y[columns], i, j)
            inside[i, j] = found <= radii.expand(inside.shape)[i, j]
        return inside


def _single_is_single(x: torch.Tensor) -> bool:
    """Whether torch multiplies float32 matrices in float32 here."""
    if x.device.type != "cpu" or x.shape[1] > WIDEST:
        return False
    if hasattr(torch.backends.mkldnn, "matmul"):  # since torch 2.9, and then the other may refuse to answer
        return torch.backends.mkldnn.matmul.fp32_precision in ("none", "ieee")
    return torch.get_float32_matmul_precision() == "highest"
