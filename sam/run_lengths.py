"""Run-length encoding of windows."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class RunLengths:
    """Run-length encoding of a window: R runs of equal values along its rows, in order; together they cover it."""

    row: np.ndarray  # (R,) intp
    column: np.ndarray  # (R,) intp: first pixel
    length: np.ndarray  # (R,) intp: pixels
    value: np.ndarray  # (R,), of the window's dtype

    @classmethod
    def of(cls, values: np.ndarray) -> "RunLengths":
        """Encode (H, W) values."""
        begins = np.ones(values.shape, bool)
        np.not_equal(values[:, 1:], values[:, :-1], out=begins[:, 1:])
        start = np.flatnonzero(begins)
        row, column = np.divmod(start, values.shape[1])
        return cls(row, column, np.diff(start, append=values.size), values.ravel()[start])

    def at(self, index: np.ndarray) -> "RunLengths":
        """Select runs by a NumPy index."""
        return RunLengths(self.row[index], self.column[index], self.length[index], self.value[index])

    def find(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Look up the runs in a sorted list, (N,): the index of each run's value, (R,) intp, and whether it is there.

        The index is valid where the value is there.
        """
        if not len(values):
            return np.zeros(len(self.value), np.intp), np.zeros(len(self.value), bool)
        index = np.minimum(np.searchsorted(values, self.value), len(values) - 1)
        return index, values[index] == self.value

    def paint(self, of_runs: np.ndarray) -> np.ndarray:
        """Paint values over the runs, (R,) or (R, channels) to (H, W) or (H, W, channels)."""
        width = int(self.column[-1] + self.length[-1])
        return np.repeat(of_runs, self.length, axis=0).reshape(-1, width, *of_runs.shape[1:])
