"""The rules of the kitchen once more, in plain Python: what the environment is tested against."""

import numpy as np

from jaxrl.envs.kitchen import LAYERS
from jaxrl.envs.kitchen.rules import DISH, DOWN, INTERACT, LEFT, NOTHING, ONION, RIGHT, SOUP, UP

WAYS = {UP: (-1, 0), DOWN: (1, 0), LEFT: (0, -1), RIGHT: (0, 1)}
FLOOR = " 12"


class Kitchen:
    """The rules once more: a map of characters, a dictionary of what lies on counters, one of pots."""

    def __init__(self, rows):
        self.rows = rows
        cells = [(r, c) for r in range(len(rows)) for c in range(len(rows[0]))]
        self.at = {cell: rows[cell[0]][cell[1]] for cell in cells}
        self.cooks = [next(cell for cell in cells if self.at[cell] == mark) for mark in "12"]
        self.facing, self.held = [UP, UP], [NOTHING, NOTHING]
        self.lying, self.pots = {}, {cell: [0, 0] for cell in cells if self.at[cell] == "P"}  # onions, steps

    def interact(self, i, started):
        (r, c), (dr, dc) = self.cooks[i], WAYS[self.facing[i]]
        cell, held = (r + dr, c + dc), self.held[i]
        place = self.at[cell]
        if place == "X" and held and cell not in self.lying:
            self.lying[cell], self.held[i] = held, NOTHING
        elif place == "X" and not held:
            self.held[i] = self.lying.pop(cell, NOTHING)
        elif place == "O" and not held:
            self.held[i] = ONION
        elif place == "D" and not held:
            useful = started > self.held.count(DISH) and DISH not in self.lying.values()
            self.held[i] = DISH
            return 3 * useful, 0
        elif place == "P" and held == ONION and self.pots[cell][0] < 3:
            self.pots[cell][0] += 1
            self.held[i] = NOTHING
            return 3, 0
        elif place == "P" and held == DISH and self.pots[cell] == [3, 20]:
            self.pots[cell], self.held[i] = [0, 0], SOUP
            return 5, 0
        elif place == "S" and held == SOUP:
            self.held[i] = NOTHING
            return 0, 1
        return 0, 0

    def step(self, actions):
        """Shaped rewards and soups of each cook."""
        started = sum(onions > 0 for onions, _ in self.pots.values())
        done = [self.interact(i, started) if a == INTERACT else (0, 0) for i, a in enumerate(actions)]
        wanted = []
        for i, action in enumerate(actions):
            (r, c), (dr, dc) = self.cooks[i], WAYS.get(action, (0, 0))
            wanted.append((r + dr, c + dc) if self.at[r + dr, c + dc] in FLOOR else (r, c))
            self.facing[i] = action if action in WAYS else self.facing[i]
        if wanted[0] != wanted[1] and wanted != self.cooks[::-1]:
            self.cooks = wanted
        for pot in self.pots.values():
            pot[1] += pot[0] == 3 and pot[1] < 20
        return done

    def layers(self, i):
        """What cook i sees: {layer: {cell: number}}."""
        seen = {name: {} for name in LAYERS}
        stations = {"P": "pot", "X": "counter", "O": "onion_dispenser", "D": "dish_dispenser", "S": "serving"}
        for cell, character in self.at.items():
            if character in stations:
                seen[stations[character]][cell] = 1
        for who, j in (("self", i), ("other", 1 - i)):
            seen[who][self.cooks[j]] = seen[f"{who}_{'up down left right'.split()[self.facing[j]]}"][self.cooks[j]] = 1
        for cell, (onions, steps) in self.pots.items():
            seen["onions_in_pot"][cell], seen["steps_cooked"][cell] = onions, steps
        for cell, item in [*self.lying.items(), *zip(self.cooks, self.held)]:
            if item:
                seen[{ONION: "onion", DISH: "dish", SOUP: "soup"}[item]][cell] = 1
        return seen


def of(rows, plan, state):
    """The kitchen in the state of `jaxrl.envs.kitchen`, NumPy."""
    plain, width = Kitchen(rows), len(rows[0])
    place = lambda cell: divmod(int(cell), width)  # noqa: E731
    plain.cooks, plain.facing, plain.held = list(map(place, state.position)), state.facing.tolist(), state.held.tolist()
    plain.lying = {place(cell): int(state.counters[cell]) for cell in np.flatnonzero(state.counters)}
    plain.pots = {place(cell): [int(o), int(c)] for cell, o, c in zip(plan.pots, state.onions, state.cooked)}
    return plain
