"""`--profile`: each operation is counted once, in the scope that it is in."""

import re

import jax
import numpy as np

import jaxrl
from jaxrl.cli import profile

TEXT = """
ENTRY %main (p: f32[4]) -> f32[] {
  %p = f32[4]{0} parameter(0)
  %act = f32[4]{0} fusion(%p), kind=kLoop, metadata={op_name="jit(chunk)/while/body/forward/tanh"}
  %loop = (f32[4]{0}, (s32[], f32[2]{0})) while(%act), metadata={op_name="jit(chunk)/learning/while"}
  %both.1 = (f32[4]{0}, f32[2]{0}) fusion(%p), metadata={op_name="jit(chunk)/learning/transpose(jvp(shuffle))/gather"}
  %copy.7 = f32[4]{0} copy(%p)
  ROOT %sum = f32[] reduce(%act), dimensions={0}, metadata={op_name="jit(chunk)/learning/forwards/reduce_sum"}
}
"""


def test_an_operation_is_in_its_innermost_scope():
    found = profile.scopes(TEXT)
    assert found == {"act": "forward", "both.1": "shuffle", "copy.7": "other", "sum": "learning"}


def test_a_traced_chunk(tmp_path):
    env = jaxrl.envs.make("CartPole-v1")
    agent, hparams = jaxrl.make_agent("ppo", env, widths=(16,))
    loop = jaxrl.online(agent, env, num_envs=64, unroll_length=16)
    state = jax.jit(loop.init)(jax.random.key(0), hparams)
    chunk = jax.jit(lambda state: jaxrl.run(loop, state, 4)).lower(state).compile()
    expected = chunk(state)
    found, wall = profile.record(lambda: jax.block_until_ready(chunk(state)), str(tmp_path))
    assert wall > 0
    np.testing.assert_array_equal(found[1]["policy_loss"], expected[1]["policy_loss"])
    spent = profile.seconds(str(tmp_path), chunk.as_text())
    assert {"environment", "forward", "learning", "shuffle", "other", "replay"} == set(spent)
    assert spent["replay"] == 0 and min(spent[x] for x in ("environment", "forward", "learning", "shuffle")) > 0
    head, *rows = profile.lines(str(tmp_path), chunk.as_text(), 1.0)
    shares = [float(re.search(r"([\d.]+)%", row)[1]) for row in rows]
    assert str(tmp_path) in head and shares == sorted(shares, reverse=True) and abs(sum(shares) - 100) < 0.5
    (nothing,) = profile.lines(str(tmp_path), "", 1.0)
    assert nothing == f"profile: the trace in {tmp_path} has no operations of this program"
