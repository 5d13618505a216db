"""The multi-agent particle environments (Lowe et al. 2017, https://arxiv.org/abs/1706.02275), with the rules of today.

Discs move in a plane, push each other apart where they touch, and some of them can say a word that others hear. Rules,
observations and rewards are those of PettingZoo's MPE, now MPE2 (https://mpe2.farama.org), which JaxMARL has as well:
`spread` is their simple_spread_v3, `reference` simple_reference_v3, `speaker_listener` simple_speaker_listener_v4, and
`tag` simple_tag_v3. An episode has 25 steps; JaxMARL 0.2 counts to 26. Nothing terminates: the clock truncates.
"""

from jaxrl.envs.particles.reference import ReferenceParams, ReferenceState, reference
from jaxrl.envs.particles.speaker_listener import SpeakerListenerParams, SpeakerListenerState, speaker_listener
from jaxrl.envs.particles.spread import SpreadParams, SpreadState, spread
from jaxrl.envs.particles.tag import TagParams, TagState, tag
from jaxrl.envs.particles.world import CONTACT_FORCE, CONTACT_MARGIN, DAMPING, DT

__all__ = [
    "CONTACT_FORCE",
    "CONTACT_MARGIN",
    "DAMPING",
    "DT",
    "ReferenceParams",
    "ReferenceState",
    "SpeakerListenerParams",
    "SpeakerListenerState",
    "SpreadParams",
    "SpreadState",
    "TagParams",
    "TagState",
    "reference",
    "speaker_listener",
    "spread",
    "tag",
]
