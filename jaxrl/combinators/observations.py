"""Parts that combinators add to what an agent sees."""

from __future__ import annotations

from jaxrl.spaces import Dict, Space
from jaxrl.types import Array, PyTree


def join(observation: PyTree, name: str, part: Array) -> dict[str, PyTree]:
    """A dict of the observation (its parts, where it is a dict itself) and one more part."""
    return {**(observation if isinstance(observation, dict) else {"observation": observation}), name: part}


def joined_space(space: Space, name: str, part: Space) -> Dict:
    """The space of `join`.

    Raises:
      ValueError: if the observation has a part of that name already.
    """
    names = space.spaces if isinstance(space, Dict) else {"observation": space}
    if name in names:
        raise ValueError(f"the observation has a part called {name!r} already, it is {space}")
    return Dict({**names, name: part})
