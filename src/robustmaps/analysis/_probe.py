"""Gains of a network's pooled features and margin on batches of images, to first order and by PGD."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from robustmaps.analysis._analysis import FeatureGain
from robustmaps.analysis._estimate import estimate
from robustmaps.analysis._gain import Function, dual_norm, first_order_gain, reached_gain
from robustmaps.analysis._receptive import gradient_energy
from robustmaps.analysis._stage_costs import maps_of
from robustmaps.analysis._stages import Stage
from robustmaps.attacks import logit_margin
from robustmaps.engine.calling import fitting, network_logits
from robustmaps.engine.errors import NoGradientError
from robustmaps.engine.finite import finite_gradient
from robustmaps.engine.random import stream


class BatchGains:
    """The measurements of one batch, per stage and image."""

    def __init__(self) -> None:
        self.wrong = self.margin_gain = self.margin_reached = torch.empty(0)
        self.gains: list[Tensor] = []
        self.reached: list[Tensor] = []
        self.values: list[Tensor] = []
        self.energy: list[Tensor] = []


class StageProbe:
    """Measures batches on one network, which must be in evaluation mode.

    Args:
        model: the network.
        stages: the stages to measure.
        largest: whether each stage is pooled by its maximum rather than its mean.
        eps, norm: the budget.
        directions: number of unit vectors per stage.
        seed: seed of the unit vectors.
    """

    def __init__(
        self,
        model: nn.Module,
        stages: Sequence[Stage],
        largest: Sequence[bool],
        eps: float,
        norm: str,
        directions: int,
        seed: int,
    ) -> None:
        self._model, self._stages, self._largest, self._eps, self._norm = model, stages, largest, eps, norm
        drawn = [
            torch.randn(directions, stage.channels, generator=stream(seed, "direction", number))
            for number, stage in enumerate(stages)
        ]
        self._directions = [vectors / vectors.norm(dim=1, keepdim=True) for vectors in drawn]

    def measure(self, x: Tensor, y: Tensor, steps: int) -> BatchGains:
        """All gains of a batch, and the effective receptive fields of the maps' middle pixels."""

        def wrong(images: Tensor) -> Tensor:
            return logit_margin(fitting(network_logits(self._model, images), y), y)

        part = self.measure_features(x, fields=True)
        with torch.no_grad():
            part.wrong = wrong(x)
        part.margin_gain = first_order_gain(wrong, x, eps=self._eps, norm=self._norm)
        if steps:
            part.margin_reached = self._reached(wrong, x, steps)
            part.reached = [self._reached(self._feature(number, x), x, steps) for number in range(len(self._stages))]
        return part

    def _reached(self, function: Function, x: Tensor, steps: int) -> Tensor:
        return reached_gain(function, x, eps=self._eps, norm=self._norm, steps=steps)

    def measure_features(self, x: Tensor, *, fields: bool = False) -> BatchGains:
        """The first-order gains of the pooled features of a batch."""
        part = BatchGains()
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            taken, _ = maps_of(self._model, x, self._stages, self._take, stop=True)
            if not all(pooled.requires_grad for pooled, _ in taken):
                raise NoGradientError
            for (pooled, centres), directions in zip(taken, self._directions, strict=True):
                vectors = directions.to(x.device)
                gains = []
                for vector in vectors:
                    (gradient,) = torch.autograd.grad((pooled @ vector).sum(), x, retain_graph=True, allow_unused=True)
                    if gradient is None:
                        raise NoGradientError
                    gains.append(self._eps * dual_norm(finite_gradient(gradient)[0], self._norm))
                part.gains.append(torch.stack(gains, dim=1).detach())
                part.values.append((pooled @ vectors.T).detach())
                if fields:
                    part.energy.append(gradient_energy(centres, x, vectors))
        return part

    def _take(self, number: int, feature_map: Tensor) -> Tensor:
        """The pooled features and the middle pixel, (2, N, C)."""
        height, width = feature_map.shape[2:]
        pooled, centre = self._pool(number, feature_map), feature_map[:, :, height // 2, width // 2]
        return torch.stack([pooled, centre]).float()

    def _pool(self, number: int, feature_map: Tensor) -> Tensor:
        return feature_map.amax((2, 3)) if self._largest[number] else feature_map.mean((2, 3))

    def _feature(self, number: int, x: Tensor) -> Function:
        """The pooled features of a stage along its first direction, as a function of images."""
        vector = self._directions[number][0].to(x.device)

        def value(images: Tensor) -> Tensor:
            (pooled,), _ = maps_of(
                self._model, images, [self._stages[number]], lambda _, taken: self._pool(number, taken), stop=True
            )
            along: Tensor = pooled.float() @ vector
            return along

        return value


def gain_of(parts: Sequence[BatchGains], number: int) -> FeatureGain:
    """The gain of a stage over all batches."""
    gains = torch.cat([part.gains[number] for part in parts]).mean(1)
    values = torch.cat([part.values[number] for part in parts])
    reached = estimate(torch.cat([part.reached[number] for part in parts]).cpu()) if parts[0].reached else None
    # Mean square over directions, as for independent ones.
    spread = float(values.var(0).mean().sqrt()) if len(values) > 1 else None
    return FeatureGain(estimate(gains.cpu()), reached, spread)
