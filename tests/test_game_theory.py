"""Games as arrays: equilibria that are known, the linear program against enumeration, ratings, risk aversion."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrl import game_theory as gt

RPS = np.array([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]])
STAG = np.array([[4.0, 0.0], [3.0, 3.0]])
PENNIES = np.array([[1.0, -1.0], [-1.0, 1.0]])


def biased(a=1.0, b=2.0, c=3.0):
    """Rock loses a to paper, paper b to scissors, scissors c to rock: the equilibrium is (b, c, a) / (a + b + c)."""
    return np.array([[0.0, -a, c], [a, 0.0, -b], [-c, b, 0.0]]), np.array([b, c, a]) / (a + b + c)


KNOWN = {
    "rps": (RPS, np.full(3, 1 / 3), np.full(3, 1 / 3), 0.0),
    "pennies": (PENNIES, np.full(2, 0.5), np.full(2, 0.5), 0.0),
    "biased": (biased()[0], biased()[1], biased()[1], 0.0),
    "saddle": (np.array([[3.0, 1.0], [0.0, 0.5], [-1.0, 0.0]]), np.array([1.0, 0, 0]), np.array([0.0, 1]), 1.0),
    "mixed": (np.array([[2.0, -1.0], [-1.0, 1.0]]), np.array([0.4, 0.6]), np.array([0.4, 0.6]), 0.2),
}


def by_supports(first, second):
    """A Nash equilibrium of a two-player game by going through all pairs of supports of one size."""
    n, m = first.shape
    for size in range(1, min(n, m) + 1):
        for rows, columns in itertools.product(*(itertools.combinations(range(k), size) for k in (n, m))):
            x, y = indifferent(second[np.ix_(rows, columns)].T), indifferent(first[np.ix_(rows, columns)])
            if x is None or y is None:
                continue
            full = np.zeros(n), np.zeros(m)
            full[0][list(rows)], full[1][list(columns)] = x, y
            best = (first @ full[1]).max(), (full[0] @ second).max()
            if full[0] @ first @ full[1] > best[0] - 1e-9 and full[0] @ second @ full[1] > best[1] - 1e-9:
                return full
    raise AssertionError("no equilibrium")


def indifferent(matrix):
    """The mixture of columns against which all rows get the same, if there is one."""
    n = len(matrix)
    system = np.block([[matrix, -np.ones((n, 1))], [np.ones((1, n)), np.zeros((1, 1))]])
    if abs(np.linalg.det(system)) < 1e-9:
        return None
    solved = np.linalg.solve(system, np.append(np.zeros(n), 1.0))[:n]
    return solved if (solved > -1e-12).all() else None


@pytest.mark.parametrize("name", KNOWN)
def test_zero_sum_equilibria_by_linear_programming(name):
    matrix, row, column, value = KNOWN[name]
    x, y = gt.zero_sum_nash(gt.two_player(matrix))
    np.testing.assert_allclose(x, row, atol=1e-9)
    np.testing.assert_allclose(y, column, atol=1e-9)
    np.testing.assert_allclose(gt.maximin(matrix)[1], value, atol=1e-9)
    np.testing.assert_allclose(gt.zero_sum_nash(gt.two_player(matrix, 7.0 - matrix))[1], column, atol=1e-9)


def test_the_linear_program_agrees_with_enumeration():
    generator = np.random.default_rng(0)
    for shape in [(2, 2), (3, 3), (3, 5), (5, 2), (4, 4)] * 6:
        matrix = generator.normal(size=shape) * 10.0 ** generator.integers(-3, 4)
        for got, want in zip(gt.zero_sum_nash(gt.two_player(matrix)), by_supports(matrix, -matrix)):
            np.testing.assert_allclose(got, want, atol=1e-7)


@pytest.mark.parametrize("name", ["rps", "biased", "mixed"])
@pytest.mark.parametrize("solve", [gt.fictitious_play, gt.regret_matching, gt.replicator])
def test_repeated_play_finds_them_too(name, solve):
    matrix, row, column, _ = KNOWN[name]
    game = gt.two_player(matrix)
    off = [s * np.linspace(1.0, 2.0, len(s)) / (s @ np.linspace(1.0, 2.0, len(s))) for s in (row, column)]
    found = jax.jit(lambda game: solve(game, start=off))(game)
    assert gt.exploitability(game, found) < 0.02
    for got, want in zip(found, (row, column)):
        np.testing.assert_allclose(got, want, atol=0.02)


def test_payoffs_gains_and_responses_of_three_players():
    """Against loops over all profiles."""
    generator = np.random.default_rng(1)
    shape = (2, 3, 4)
    game, sigma = generator.normal(size=(3, *shape)), [generator.dirichlet(np.ones(n)) for n in shape]
    expected, values = np.zeros(3), [np.zeros(n) for n in shape]
    second = [np.zeros((n, n)) for n in shape]
    for profile in itertools.product(*map(range, shape)):
        for i in range(3):
            others = np.prod([sigma[j][profile[j]] for j in range(3) if j != i])
            expected[i] += others * sigma[i][profile[i]] * game[(i, *profile)]
            values[i][profile[i]] += others * game[(i, *profile)]
            for b in range(shape[i]):
                twin = (*profile[:i], b, *profile[i + 1 :])
                second[i][profile[i], b] += others * game[(i, *profile)] * game[(i, *twin)]
    np.testing.assert_allclose(gt.expected_payoffs(game, sigma), expected, rtol=1e-5)
    np.testing.assert_allclose(gt.gains(game, sigma), [v.max() - e for v, e in zip(values, expected)], rtol=1e-4)
    np.testing.assert_allclose(gt.exploitability(game, sigma), gt.nash_conv(game, sigma) / 3, rtol=1e-6)
    for i in range(3):
        assert np.argmax(gt.best_response(game, sigma, i)) == np.argmax(values[i])
        covariance = second[i] - np.outer(values[i], values[i])
        np.testing.assert_allclose(gt.covariance_under(game, sigma, i), covariance, atol=1e-5)


def test_exploitability_is_what_a_best_response_takes():
    rock = [np.array([1.0, 0, 0])] * 2
    assert gt.nash_conv(gt.two_player(RPS), rock) == 2 and gt.exploitability(gt.two_player(RPS), rock) == 1
    assert gt.exploitability(gt.symmetric(STAG), [np.array([1.0, 0])] * 2) == 0
    np.testing.assert_allclose(gt.exploitability(gt.symmetric(STAG), [np.array([0.75, 0.25])] * 2), 0, atol=1e-6)


def nearest(x, floor):
    """Projection onto the simplex by bisection, in a plain loop."""
    low, high = x.min() - 2.0, x.max()
    for _ in range(200):
        tau = (low + high) / 2
        if sum(max(v - tau, floor) for v in x) > 1:
            low = tau
        else:
            high = tau
    return np.array([max(v - high, floor) for v in x])


@pytest.mark.parametrize("floor", [0.0, 0.02])
def test_projection_onto_the_simplex_against_a_plain_loop(floor):
    generator = np.random.default_rng(2)
    for n in (1, 2, 5, 40):
        x = generator.normal(size=(20, n)) * generator.choice([0.01, 1.0, 100.0], size=(20, 1))
        x = np.concatenate([x, np.zeros((1, n))]).astype(np.float32)
        got = jax.jit(gt.project, static_argnums=1)(x, floor)
        np.testing.assert_allclose(got, [nearest(row.astype(float), floor) for row in x], atol=1e-5)
        assert (got >= floor).all()


def test_quadratic_programs_are_solved():
    """The conditions of optimality: the slope is the same where there is room, and not larger where there is none."""
    generator = np.random.default_rng(3)
    solve = jax.jit(lambda *x: gt.maximize_quadratic(*x, jnp.full(6, 1 / 6), floor=0.01, num_steps=1000))
    for _ in range(10):
        root, linear = generator.normal(size=(6, 4)), generator.normal(size=6)
        covariance = (root @ root.T).astype(np.float32)
        x = np.asarray(solve(linear.astype(np.float32), covariance))
        slope = linear - 2 * covariance @ x
        inside = x > 0.0101
        assert np.ptp(slope[inside]) < 5e-3 and slope[~inside].max(initial=-9) < slope[inside].min() + 5e-3
        assert abs(x.sum() - 1) < 1e-5


def test_risk_averse_equilibria_of_stag_hunt():
    """Both hunt stags while lambda is small; above a threshold that is computed the hare is all that is left.

    Where the other hunts with q = 1 - eps, hunting more often is worth 4 q - 3 - 2 lambda 16 q (1 - q) q. There is no
    equilibrium near stag where that is negative.
    """
    game, eps = gt.symmetric(STAG), 0.05
    q = 1 - eps
    threshold = (4 * q - 3) / (32 * q * q * (1 - q))
    lambdas = threshold * np.array([0.0, 0.5, 0.95, 1.05, 2.0, 8.0])
    stag = [np.array([1.0, 0.0])] * 2

    @jax.jit
    @jax.vmap
    def solve(lambda_):
        sigma = gt.rae(game, lambda_, floor=eps, num_steps=1000, start=stag)
        return jnp.stack(sigma), gt.rae_residual(game, sigma, lambda_, floor=eps)

    sigma, residual = solve(jnp.float32(lambdas))
    assert (residual < 1e-3).all(), residual
    np.testing.assert_allclose(sigma[:3, :, 0], 1 - eps, atol=1e-3)
    np.testing.assert_allclose(sigma[3:, :, 0], eps, atol=1e-3)


def test_noise_is_a_risk_that_others_do_not_make():
    """One action pays mu by chance with variance v, the other 0: the best weight p and r at it, by hand.

    Against q, r = p (mu - lambda v) - lambda p^2 c with c = d^2 q (1 - q), where the other's action adds d or nothing.
    """
    d, q, lambda_, v, mu = 2.0, 0.25, 0.5, 0.3, 0.4
    payoffs = gt.two_player(np.array([[mu + d * (1 - q), mu - d * q], [0.0, 0.0]], np.float32), np.zeros((2, 2)))
    noise = np.zeros((2, 2, 2), np.float32)
    noise[0, 0], noise[1] = v, 9.0
    sigma = [jnp.float32([0.5, 0.5]), jnp.float32([q, 1 - q])]
    c = d**2 * q * (1 - q)
    best = (mu - lambda_ * v) / (2 * lambda_ * c)
    response = gt.risk_averse_response(payoffs, sigma, 0, lambda_, noise=noise)
    np.testing.assert_allclose(response, [best, 1 - best], atol=1e-4)
    value = gt.risk_averse_payoff(payoffs, [response, sigma[1]], 0, lambda_, noise)
    np.testing.assert_allclose(value, best * (mu - lambda_ * v) - lambda_ * best**2 * c, atol=1e-5)
    gain = gt.rae_residual(payoffs, [sigma[0], sigma[1]], lambda_, floor=0.0, noise=noise)
    there = 0.5 * (mu - lambda_ * v) - lambda_ * 0.25 * c
    np.testing.assert_allclose(gain, value - there, atol=1e-5)
    found = gt.rae(payoffs, lambda_, floor=0.01, noise=noise)
    assert gt.rae_residual(payoffs, found, lambda_, floor=0.01, noise=noise) < 1e-3
    assert gt.rae_residual(payoffs, found, lambda_, floor=0.01) > 0.01


def test_risk_neutral_equilibria_are_those_of_nash():
    for game, start in ((gt.symmetric(STAG), None), (gt.symmetric(STAG), [np.array([1.0, 0.0])] * 2)):
        sigma = jax.jit(lambda game: gt.rae(game, 0.0, num_steps=1000, start=start))(game)  # noqa: B023
        assert gt.exploitability(game, sigma) < 0.01
    assert sigma[0][0] > 0.99
    matrix, row, *_ = KNOWN["pennies"]
    sigma = jax.jit(lambda game: gt.rae(game, 0.0, num_steps=1000))(gt.two_player(matrix))
    assert gt.exploitability(gt.two_player(matrix), sigma) < 0.01


@pytest.fixture(scope="module")
def random_games():
    games = np.random.default_rng(4).normal(size=(100, 2, 3, 3)).astype(np.float32)

    @jax.jit
    @jax.vmap
    def solve(game):
        sigma = gt.rae(game, 1.0, floor=0.02, num_steps=2000)
        return sigma, gt.rae_residual(game, sigma, 1.0, floor=0.02, num_steps=300)

    return games, *jax.device_get(solve(games))


def test_nobody_gains_at_a_risk_averse_equilibrium(random_games):
    """By the program's own answer, nor by any of many strategies. Few games in a hundred make play go on in cycles."""
    games, sigma, residual = random_games
    assert np.mean(residual < 1e-3) >= 0.95, np.sort(residual)[-10:]
    others = 0.02 + 0.94 * np.random.default_rng(5).dirichlet(np.ones(3), size=50)
    value = jax.vmap(gt.risk_averse_payoff, (None, 0, None, None))
    for game, row, column, r in zip(games[:20], *sigma, residual):
        tried = value(game, [others.astype("f4"), np.tile(column, (50, 1))], 0, 1.0)
        assert tried.max() <= gt.risk_averse_payoff(game, [row, column], 0, 1.0) + r + 1e-4


def test_what_risk_averse_players_get_varies_less(random_games):
    """Than what the same opponent leaves to a risk-neutral player, in each of 100 games, and on average less
    than at Nash equilibria of trembling players.
    """
    games, sigma, residual = random_games
    at_nash, at_rae = [], []
    for game, row, column, r in zip(games, *sigma, residual):
        for i, mine in enumerate((row, column)):
            covariance = gt.covariance_under(game, [row, column], i)
            neutral = 0.02 + 0.94 * gt.best_response(game, [row, column], i)
            assert mine @ covariance @ mine <= neutral @ covariance @ neutral + r + 1e-4
        nash = [0.02 + 0.94 * s.astype("f4") for s in by_supports(*game.astype(float))]
        at_nash.append(gt.variances(game, nash).sum())
        at_rae.append(gt.variances(game, [row, column]).sum())
    assert np.mean(at_rae) < 0.9 * np.mean(at_nash), (np.mean(at_rae), np.mean(at_nash))


def test_alpha_rank():
    np.testing.assert_allclose(gt.alpha_rank(gt.two_player(RPS)), np.full((3, 3), 1 / 9), atol=1e-12)
    ranked = gt.alpha_rank(gt.symmetric(np.array([[3.0, 0.0], [5.0, 1.0]])), alpha=1.0, population_size=5)
    assert ranked[1, 1] > 0.95 and abs(ranked.sum() - 1) < 1e-12
    # Two players of two actions, in which one population matters: rho up / (rho up + rho down).
    one = gt.two_player(np.array([[0.0], [0.3]]), np.zeros((2, 1)))
    rho = [(1 - np.exp(-2 * d)) / (1 - np.exp(-2 * 4 * d)) for d in (0.3, -0.3)]
    np.testing.assert_allclose(gt.alpha_rank(one, 2.0, 4)[:, 0], [rho[1] / sum(rho), rho[0] / sum(rho)], rtol=1e-6)
    np.testing.assert_allclose(gt.marginals(ranked)[0], ranked.sum(1))


def test_elo_explains_win_rates_of_one_strength_and_no_cycles():
    ratings = np.array([150.0, -50.0, 30.0, -130.0])
    rates, elo = gt.win_probability(jnp.asarray(ratings)), jax.jit(gt.elo)
    np.testing.assert_allclose(rates[0, 1], 1 / (1 + 10 ** (-200 / 400)), rtol=1e-6)
    np.testing.assert_allclose(elo(rates), ratings, atol=0.05)
    np.testing.assert_allclose(elo(rates, np.arange(16).reshape(4, 4)), ratings, atol=0.05)
    np.testing.assert_allclose(gt.elo(0.5 + 0.4 * RPS), 0.0, atol=1e-3)
    only_wins = gt.elo(np.array([[0.5, 1.0], [0.0, 0.5]]), clip=0.01)
    np.testing.assert_allclose(only_wins[0] - only_wins[1], 400 * np.log10(99), rtol=1e-4)


def test_nash_averaging_does_not_change_with_copies():
    rates = np.full((5, 5), 0.5)
    who = [0, 0, 1, 2]  # rock twice
    rates[:4, :4] = 0.5 + 0.4 * RPS[np.ix_(who, who)]
    rates[4, :4], rates[:4, 4] = 0.2, 0.8
    strategy, ratings = gt.nash_average(rates)
    np.testing.assert_allclose(strategy, [1 / 6, 1 / 6, 1 / 3, 1 / 3, 0], atol=1e-4)
    np.testing.assert_allclose(ratings, [0, 0, 0, 0, np.log(0.2 / 0.8)], atol=1e-4)


def test_rectified_nash_plays_whom_it_beats():
    nash, mixtures = gt.rectified(biased()[0])
    np.testing.assert_allclose(nash, biased()[1], atol=1e-9)
    rock, paper, scissors = biased()[1]
    want = [[rock, 0, scissors], [rock, paper, 0], [0, paper, scissors]]
    np.testing.assert_allclose(mixtures, np.array(want) / np.sum(want, 1, keepdims=True), atol=1e-9)


def test_bad_arguments_end_in_a_line():
    game = gt.two_player(RPS)
    with pytest.raises(ValueError, match=r"payoffs have shape \(3, 3\), must be \[A, n_1, ..., n_A\]"):
        gt.uniform(RPS)
    with pytest.raises(ValueError, match="add up to 0 in one place and 8 in another"):
        gt.zero_sum_nash(gt.symmetric(np.array([[4.0, 0], [0, 0]])))
    with pytest.raises(ValueError, match="payoffs are those of 3 players, must be those of 2"):
        gt.zero_sum_nash(np.zeros((3, 2, 2, 2)))
    with pytest.raises(ValueError, match=r"floor is 0.5, must be in \[0, 0.3333\)"):
        gt.rae(game, 1.0, floor=0.5)
    with pytest.raises(ValueError, match="meta_solver: 'best' is not known, allowed: alpha_rank, nash"):
        gt.meta_solver("best")
    with pytest.raises(ValueError, match="alpha is -1 and population_size 50, must be > 0 and >= 2"):
        gt.alpha_rank(game, -1)
    with pytest.raises(ValueError, match="the matrix is not antisymmetric"):
        gt.rectified(STAG)
    with pytest.raises(ValueError, match=r"elo: win_rates have shape \(2, 3\)"):
        gt.elo(np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"replicator: floor is 0.9, must be in \[0, 0.3333\]"):
        gt.replicator(game, floor=0.9)


def test_gradients_of_a_network_strategy():
    """Where one agent sees what the other does, the best joint action is found far more often."""
    payoff = np.array([[11, -30, 0], [-30, 7, 6], [0, 0, 5]], np.float32)  # climbing
    keys = jax.random.split(jax.random.key(0), 40)

    def play(parents):
        def once(key):
            tables, values = gt.network_gradient_ascent(key, payoff, parents, num_steps=3000, learning_rate=0.5)
            return gt.network_strategy(tables), values

        return jax.jit(jax.vmap(once))(keys)

    joint, values = play(np.array([[0, 0], [1, 0]]))
    np.testing.assert_allclose(joint.sum((1, 2)), 1.0, atol=1e-5)
    np.testing.assert_allclose(values[:, -1], np.sum(joint * payoff, (1, 2)), atol=0.05)
    assert np.all(np.diff(values, axis=1) > -1e-3)  # an ascent
    seeing = np.mean(values[:, -1] > 10)
    joint, values = play(np.zeros((2, 2)))
    assert np.mean(values[:, -1] > 10) < 0.35 < 0.6 < seeing
    np.testing.assert_allclose(joint, joint.sum(2, keepdims=True) * joint.sum(1, keepdims=True), atol=1e-5)
    with pytest.raises(ValueError, match="cycle"):
        gt.network_gradient_ascent(keys[0], payoff, [[0, 1], [1, 0]], num_steps=1)
    with pytest.raises(ValueError, match="parents has shape"):
        gt.network_gradient_ascent(keys[0], payoff, [[0]], num_steps=1)
