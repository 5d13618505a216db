"""The equations of `jaxrl.returns` as sums over plain float64 columns: slow, and written differently on purpose.

Each function takes 1-d arrays of one trajectory window; `columns` lifts it to [T, ...] and drops rows of weight 0.
"""

import numpy as np


def columns(fn, *arrays, weight=None, **kwargs):
    """fn applied to each column of arrays [T, ...], to the rows of positive weight only; NaN in the other rows."""
    arrays = [np.asarray(a, np.float64) for a in arrays]
    shape = arrays[0].shape
    flat = [a.reshape(shape[0], -1) for a in arrays]
    keep = np.ones(flat[0].shape, bool) if weight is None else np.asarray(weight).reshape(flat[0].shape) > 0
    outputs = None
    for i in range(flat[0].shape[1]):
        rows = keep[:, i]
        result = fn(*(a[rows, i] for a in flat), **kwargs)
        result = result if isinstance(result, tuple) else (result,)
        if outputs is None:
            outputs = [np.full(flat[0].shape, np.nan) for _ in result]
        for output, column in zip(outputs, result, strict=True):
            output[rows, i] = column
    outputs = tuple(output.reshape(shape) for output in outputs)
    return outputs if len(outputs) > 1 else outputs[0]


def gae(reward, value, next_value, discount, trace):
    """A_t = sum_k (prod_{i<k} trace_{t+i}) delta_{t+k}."""
    advantage = np.zeros(len(reward))
    for t in range(len(reward)):
        product = 1.0
        for k in range(t, len(reward)):
            advantage[t] += product * (reward[k] + discount[k] * next_value[k] - value[k])
            product *= trace[k]
    return advantage


def lambda_returns(reward, next_value, discount, trace):
    """G_t = V(s'_{t-1}) + (GAE with the values V(s'_{t-1})), unrolled from the front."""
    returns = np.zeros(len(reward))
    for t in range(len(reward)):
        product = 1.0
        for k in range(t, len(reward)):
            error = reward[k] + discount[k] * next_value[k]
            returns[t] += product * (error if k == t else error - next_value[k - 1])
            product *= trace[k]
    return returns


def n_step_returns(reward, next_value, discount, is_last, n):
    """G_t = sum_{k<m} (prod_{i<k} discount_{t+i}) r_{t+k} + (prod_{i<m} discount_{t+i}) V(s'_{t+m-1}).

    m is n, or fewer where the episode or the window ends.
    """
    returns = np.zeros(len(reward))
    for t in range(len(reward)):
        product = 1.0
        for k in range(t, min(t + n, len(reward))):
            returns[t] += product * reward[k]
            product *= discount[k]
            if is_last[k]:
                break
        returns[t] += product * next_value[k]
    return returns


def discounted_returns(reward, next_value, discount, is_last):
    """The n-step return of as many steps as there are."""
    return n_step_returns(reward, next_value, discount, is_last, n=max(len(reward), 1))


def vtrace(reward, value, next_value, discount, trace, ratio, clip_rho, clip_c, clip_pg_rho):
    """v_t = V(s_t) + sum_k (prod_{i<k} trace_{t+i} c_{t+i}) rho_{t+k} delta_{t+k}; its advantage."""
    length = len(reward)
    targets, advantage = np.zeros(length), np.zeros(length)
    for t in range(length):
        product = 1.0
        targets[t] = value[t]
        for k in range(t, length):
            delta = reward[k] + discount[k] * next_value[k] - value[k]
            targets[t] += product * min(clip_rho, ratio[k]) * delta
            product *= trace[k] * min(clip_c, ratio[k])
    for t in range(length):
        future = trace[t] * (targets[t + 1] - value[t + 1]) if t + 1 < length else 0.0
        advantage[t] = min(clip_pg_rho, ratio[t]) * (reward[t] + discount[t] * next_value[t] + future - value[t])
    return targets, advantage


def retrace(reward, q, next_v, discount, trace, ratio, clip_c):
    """Q_t + sum_k (prod_{1<=i<=k} trace_{t+i-1} c_{t+i}) delta_{t+k}."""
    targets = np.zeros(len(reward))
    for t in range(len(reward)):
        product = 1.0
        targets[t] = q[t]
        for k in range(t, len(reward)):
            targets[t] += product * (reward[k] + discount[k] * next_v[k] - q[k])
            if k + 1 < len(reward):
                product *= trace[k] * min(clip_c, ratio[k + 1])
    return targets
