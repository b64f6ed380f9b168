"""Checksums of the blocks of a file, verified as each is first read, so that a large file opens at once."""

import mmap
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from robustmaps.engine.checked import Damaged

_BLOCK_BYTES = 1 << 14


def rows_in_block(row_bytes: int) -> int:
    """The rows of a block: about 16 KiB, and at least one, so that reading a row never reads much else."""
    return max(_BLOCK_BYTES // max(row_bytes, 1), 1)


def block_checksums(rows: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """The CRC-32 of each block of an array of rows."""
    step = rows_in_block(rows[:1].nbytes)
    return np.array([zlib.crc32(rows[i : i + step].data) for i in range(0, len(rows), step)], dtype=np.uint32)


class Blocks:
    """The blocks of a file of rows, each verified once.

    Args:
        path: the file.
        offset: where the rows begin.
        row_bytes: bytes of a row.
        rows: number of rows.
        checksums: the result of `block_checksums`.
        mend: what to do about damage, for the message.

    Raises:
        ValueError: another number of checksums than blocks.
    """

    def __init__(
        self, path: Path, offset: int, row_bytes: int, rows: int, checksums: NDArray[np.uint32], mend: str
    ) -> None:
        self._path, self._offset, self._mend = path, offset, mend
        self._step = rows_in_block(row_bytes)
        self._block_bytes, self._end = self._step * row_bytes, offset + rows * row_bytes
        self._checksums = checksums
        self._pending = np.ones(len(checksums), dtype=bool)
        self._left = bool(len(checksums))
        if len(checksums) != -(-rows // self._step):
            raise ValueError(f"{path}: {len(checksums)} checksums, expected {-(-rows // self._step)}")
        # A map of its own, since a user of the images may change them in memory; it stays valid if another process
        # replaces the file.
        with path.open("rb") as file:
            self._bytes = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

    def verify(self, rows: Tensor | None = None) -> None:
        """Verify the blocks of these rows, int64, (n,), or of all, as far as they have not been.

        Raises:
            Damaged: a block is not as it was written.
        """
        if not self._left:
            return
        pending = self._pending.copy() if rows is None else np.zeros_like(self._pending)
        if rows is not None:
            pending[rows.cpu().numpy() // self._step] = True
            pending &= self._pending
        for block in np.flatnonzero(pending).tolist():
            begin = self._offset + block * self._block_bytes
            if zlib.crc32(self._bytes[begin : min(begin + self._block_bytes, self._end)]) != self._checksums[block]:
                first = block * self._step
                raise Damaged(f"{self._path}: damaged in images {first} to {first + self._step - 1}; {self._mend}")
            self._pending[block] = False
        self._left = bool(self._pending.any())

    def __reduce__(self) -> tuple[type, tuple[()]]:
        """A copy of the images in another process is one of verified images."""
        self.verify()
        return _Verified, ()


class _Verified:
    def verify(self, rows: Tensor | None = None) -> None:
        """Nothing is left to verify."""
