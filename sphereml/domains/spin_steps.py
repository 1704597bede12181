"""The sums over neighbours that a spin convolution is made of, forward and backward, and their matrices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

import numpy as np

from sphereml.domains.mixing import Block, Mixing, Term

# What a table multiplies: real values by the real or imaginary part of the weights, or values and i times them.
Part = Literal["real", "imaginary", "complex"]


@dataclass(frozen=True)
class Operator:
    """A derivative, or its adjoint, as a table of weights; ``conjugate`` counts for the adjoint alone."""

    source: int
    up: int
    down: int
    part: Part
    adjoint: bool = False
    conjugate: bool = False

    @classmethod
    def of(cls, term: Term, part: Part, adjoint: bool = False) -> Operator:
        return cls(term.source, term.up, term.down, part, adjoint, term.conjugate and adjoint)

    def table(self, weights: np.ndarray) -> np.ndarray:
        """Real weights of complex ones ``(n, k)``, of the adjoint those by which the neighbours see the pixel.

        ``(n, k)``, or ``(n, 2 k)`` for the neighbours and i times them.
        """
        if self.adjoint and not self.conjugate:
            weights = weights.conj()
        if self.part == "complex":
            return np.concatenate([weights.real, weights.imag], axis=1)
        return weights.real if self.part == "real" else weights.imag


@dataclass(frozen=True)
class Step:
    """A term of one pass: its operator (None: own values), the spin that acts on, and its matrix between two spins."""

    operator: Operator | None
    spin: int
    block: Block
    source: int
    target: int


@dataclass(frozen=True)
class Steps:
    """Both passes of a convolution."""

    mixing: Mixing

    @cached_property
    def forward(self) -> tuple[Step, ...]:
        return tuple(self._forward())

    @cached_property
    def backward(self) -> tuple[Step, ...]:
        return tuple(self._backward())

    @cached_property
    def operators(self) -> frozenset[Operator]:
        steps = (*self.forward, *self.backward)
        return frozenset(step.operator for step in steps if step.operator is not None)

    def _forward(self) -> Iterator[Step]:
        for own in self.mixing.blocks:
            term = own.term
            if term.is_own:
                yield Step(None, term.source, own.plain, term.source, term.target)
            elif term.source:
                yield Step(Operator.of(term, "complex"), term.source, own.plain, term.source, term.target)
            else:
                yield Step(Operator.of(term, "real"), 0, own.plain, 0, term.target)
                if own.turned is not None:
                    yield Step(Operator.of(term, "imaginary"), 0, own.turned, 0, term.target)

    def _backward(self) -> Iterator[Step]:
        for own in self.mixing.blocks:
            term = own.term
            if term.is_own:
                yield Step(None, term.target, own.plain, term.source, term.target)
            elif term.target:
                yield Step(Operator.of(term, "complex", adjoint=True), term.target, own.plain, term.source, term.target)
            else:
                yield Step(Operator.of(term, "real", adjoint=True), 0, own.plain, term.source, 0)
                if own.turned is not None:
                    yield Step(Operator.of(term, "imaginary", adjoint=True), 0, own.turned, term.source, 0)


@lru_cache(maxsize=256)
def steps_of(mixing: Mixing) -> Steps:
    return Steps(mixing)
