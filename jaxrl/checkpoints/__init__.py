"""Checkpoints of whole states: saved in the background, verified before they count, restored to the bit or not at all.

    with Checkpoints(folder, keep=3, config={"agent": "ppo"}) as checkpoints:
        checkpoints.save(step, state)
        state = checkpoints.restore(state).state

A folder holds, for each step, what orbax wrote (`100/`) and a manifest (`100.json`) with a digest of every file and of
every array. Orbax alone returns damaged arrays without an error; a step here that does not agree with its manifest is
said to be damaged, and the one before it is taken. Nothing in such a folder is ever run.
"""

from jaxrl.checkpoints.reading import Reader, Restored, open_readonly, read_config
from jaxrl.checkpoints.store import Checkpoints

__all__ = ["Checkpoints", "Reader", "Restored", "open_readonly", "read_config"]
