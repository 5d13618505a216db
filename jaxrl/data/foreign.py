"""Fields of other libraries' files, as ours: float32, int32, bool flags."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxrl.untrusted import BadFile


def narrow(x: np.ndarray, name: str, path: Any) -> np.ndarray:
    """Floats of 64 bits as 32, integers as int32; what is shorter stays as it is.

    Raises:
      BadFile: if a number does not fit, or x is not of numbers.
    """
    if x.dtype.kind not in "biuf":
        problem = "holds Python objects or text" if x.dtype.kind in "OSU" else f"is {x.dtype}"
        raise BadFile(f"{path}: {name}: {problem}; must be numbers")
    short = np.float32 if x.dtype.kind == "f" else np.int32
    if x.dtype.itemsize <= 4 and x.dtype != np.uint32:
        return x.astype(x.dtype.newbyteorder("="), copy=False)
    with np.errstate(over="ignore"):
        found = x.astype(short)
    lost = np.isfinite(x) & ~np.isfinite(found) if short is np.float32 else found != x
    if np.any(lost):
        raise BadFile(f"{path}: {name}: {x[lost].flat[0]} does not fit {short.__name__}")
    return found


def column(x: np.ndarray, name: str, path: Any, kind: type) -> np.ndarray:
    """One number a row: rewards (kind float, as float32) or flags (kind bool, from 0 and 1).

    Raises:
      BadFile: if it has more than one number a row, or a flag is neither.
    """
    x = narrow(x, name, path)
    if x.ndim == 2 and x.shape[1] == 1:
        x = x[:, 0]
    if x.ndim != 1:
        raise BadFile(f"{path}: {name}: has shape {x.shape}, must be one number a row")
    if kind is float:
        return x.astype(np.float32)
    if x.dtype != np.bool_ and not np.isin(x, (0, 1)).all():
        row = int(np.argmin(np.isin(x, (0, 1))))
        raise BadFile(f"{path}: {name}: is {x[row]} in row {row}, must be 0 or 1")
    return x.astype(bool)
