"""The same program gives the same bits; programs of another width agree to rounding. A part of the script's table."""

import pathlib
import sys

import jax
import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "benchmarks" / "reliability"))

import determinism  # noqa: E402
from determinism import TOLERANCE, UPDATES, digest, elsewhere, trained  # noqa: E402


@pytest.fixture(scope="module")
def halves():
    return trained("ppo", (UPDATES // 2, UPDATES // 2))


def test_one_scan_in_another_process_on_one_core_with_more_devices_gives_the_same_bits(halves):
    assert halves[1]["value_loss"].shape == (UPDATES,)
    assert elsewhere(["ppo"], cores=1, devices=4) == {"ppo": digest(halves)}


def test_the_digest_is_of_every_bit(halves):
    state, metrics = halves
    reference = digest(halves)
    leaves, structure = jax.tree.flatten(state)
    for i, x in enumerate(leaves):
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            changed = jax.random.split(x)[0]
        elif x.size:
            changed = np.array(x)
            last = changed.reshape(-1)[-1:]  # a view: the last element alone, by its last bit
            last.view(np.uint8)[0] ^= 1
        other = jax.tree.unflatten(structure, [*leaves[:i], changed, *leaves[i + 1 :]])
        assert x.size == 0 or digest((other, metrics)) != reference


def test_seeds_side_by_side_and_over_devices_agree_with_one_alone_to_rounding():
    (found,) = elsewhere(["ppo"], devices=2, what="spread").values()
    assert 0 < found[0] <= TOLERANCE and found[-1] <= 10 * TOLERANCE


def test_how_far_apart_is_measured():
    a, b = [np.array([1.0, np.inf]), np.array([2.0, 0.0])], [np.array([1.0, np.inf]), np.array([4.0, 0.0])]
    assert determinism.apart(a, b) == 0.5 and determinism.apart(a, a) == 0.0
    assert not determinism.apart([np.array([np.nan])], [np.array([1.0])]) <= TOLERANCE
