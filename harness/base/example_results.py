"""The results of a training on single examples, as a few kilobytes.

A file has a header (what it is, the number of examples, their digest), the results, and a checksum.
A yes-or-no result takes one bit, any other four bytes.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

_HEADER = struct.Struct("<4s4sQ32s")
_CHECKSUM = struct.Struct("<I")
_MAGIC = b"exr1"
_BITS, _FLOATS = b"bits", b"f32 "


@dataclass(frozen=True, eq=False)
class ExampleResults:
    """One value for each example, in their order.

    Attributes:
        values: (m,), bool for a yes-or-no metric such as the accuracy, otherwise float32.
        examples: SHA-256 of the examples, in hexadecimal; see `Examples.digest`.

    Raises:
        ValueError: the values are not (m,), or the digest is none.
    """

    values: NDArray[Any]
    examples: str

    def __post_init__(self) -> None:
        import numpy as np

        values = np.asarray(self.values)
        if values.ndim != 1 or values.dtype.kind not in "biuf":
            raise ValueError(f"expected numbers (m,), got {values.dtype} {values.shape}")
        if len(self.examples) != 64 or set(self.examples) - set("0123456789abcdef"):
            raise ValueError(f"expected a SHA-256 in hexadecimal, got {self.examples!r}")
        if values.dtype != bool:
            with np.errstate(over="ignore"):
                values = values.astype(np.float32)
        object.__setattr__(self, "values", values)

    def encode(self) -> bytes:
        """The results as bytes; `decode` reads them."""
        import numpy as np

        kind = _BITS if self.values.dtype == bool else _FLOATS
        content = np.packbits(self.values) if kind == _BITS else self.values.astype("<f4")
        header = _HEADER.pack(_MAGIC, kind, len(self.values), bytes.fromhex(self.examples))
        whole = header + content.tobytes()
        return whole + _CHECKSUM.pack(zlib.crc32(whole))

    @classmethod
    def decode(cls, data: bytes, examples: str | None = None) -> ExampleResults:
        """Read what `encode` has written.

        Args:
            examples: the digest of the examples that the results must be about.

        Raises:
            ValueError: they are damaged, of another kind, or about other examples.
        """
        import numpy as np

        if data[:4] != _MAGIC:
            raise ValueError("not the results on single examples")
        whole, checksum = data[: -_CHECKSUM.size], data[-_CHECKSUM.size :]
        if len(whole) < _HEADER.size or checksum != _CHECKSUM.pack(zlib.crc32(whole)):
            raise ValueError("the results on single examples are damaged")
        _, kind, size, digest = _HEADER.unpack_from(whole)
        content = whole[_HEADER.size :]
        if kind not in (_BITS, _FLOATS) or len(content) != (
            (size + 7) // 8 if kind == _BITS else 4 * size
        ):
            raise ValueError("the results on single examples are of an unknown kind or size")
        if examples not in (None, digest.hex()):
            raise ValueError(
                f"results on other examples: {digest.hex()[:12]}, not {str(examples)[:12]}"
            )
        if kind == _BITS:
            bits = np.unpackbits(np.frombuffer(content, np.uint8), count=size)
            return cls(bits.astype(bool), digest.hex())
        return cls(np.frombuffer(content, "<f4"), digest.hex())
