"""Networks whose evaluation can't be trusted, made from an honest one."""

import copy
import io
import warnings
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn


class Around(nn.Module):
    """A network with something before it and something behind it."""

    def __init__(
        self,
        network: nn.Module,
        before: Callable[[Tensor], Tensor] = lambda x: x,
        after: Callable[[Tensor], Tensor] = lambda z: z,
    ) -> None:
        super().__init__()
        self.network, self.before, self.after = network, before, after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.network(self.before(x)))


class Copied(torch.autograd.Function):
    """Rounding with a gradient that is not its own."""

    @staticmethod
    def forward(ctx: object, x: Tensor) -> Tensor:
        return (3 * x).round() / 3

    @staticmethod
    def backward(ctx: object, *gradients: Tensor) -> Tensor:
        return gradients[0]


class Deaf(nn.Module):
    """Layers that stay in training mode."""

    def __init__(self, network: nn.Module, extra: nn.Module) -> None:
        super().__init__()
        self.network, self.extra = network, extra

    def train(self, mode: bool = True) -> "Deaf":
        super().train(mode)
        self.extra.train(True)
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.network(self.extra(x))


class Mapped(nn.Module):
    """A network that takes one image at a time."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return torch.vmap(lambda one: self.network(one[None])[0])(x)


class Constant(nn.Module):
    """The same answer whatever the image."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.scores = nn.Parameter(torch.arange(classes).float())

    def forward(self, x: Tensor) -> Tensor:
        return self.scores.expand(len(x), -1)


class DropPath(nn.Module):
    """A residual step that is left out at random, in evaluation mode, too."""

    def forward(self, x: Tensor) -> Tensor:
        kept = torch.rand(len(x), 1, 1, 1, device=x.device) < 0.8
        return x + 0.3 * kept * x.roll(1, 3)


def quantised(levels: int) -> Callable[[Tensor], Tensor]:
    return lambda x: (x * (levels - 1)).round() / (levels - 1)


def straight_through(levels: int) -> Callable[[Tensor], Tensor]:
    return lambda x: x + (quantised(levels)(x) - x).detach()


def thermometer(x: Tensor) -> Tensor:
    """Each pixel as the share of thresholds that it exceeds."""
    thresholds = torch.linspace(0.1, 0.9, 4, device=x.device)
    return (x[..., None] > thresholds).float().mean(-1)


def as_jpeg(x: Tensor) -> Tensor:
    """Grey images, compressed and read again."""

    def one(image: Tensor) -> np.ndarray:
        file = io.BytesIO()
        Image.fromarray((image[0] * 255).round().clamp(0, 255).byte().numpy()).save(file, "JPEG", quality=5)
        return np.array(Image.open(file), dtype=np.float32) / 255

    return torch.from_numpy(np.stack([one(image) for image in x.detach().cpu()])[:, None]).to(x)


def passed_jpeg(x: Tensor) -> Tensor:
    return x + (as_jpeg(x) - x).detach()


def of_the_batch(x: Tensor) -> Tensor:
    """Normalised with the statistics of the batch."""
    return 0.5 + 0.25 * F.batch_norm(x, None, None, training=True)


def with_numpy_noise(x: Tensor) -> Tensor:
    return x + 0.05 * torch.from_numpy(np.random.standard_normal(tuple(x.shape))).to(x)


def refusing(x: Tensor) -> Tensor:
    if not 0 <= float(x.detach().min()) <= float(x.detach().max()) <= 1:
        raise AssertionError("images must be in [0, 1]")
    return x


def scripted(network: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.script(network)


def one_hot(z: Tensor) -> Tensor:
    return F.one_hot(z.argmax(1), z.shape[1]).float()


def half(z: Tensor) -> Tensor:
    return z.softmax(1).half()


DOUBTFUL: dict[str, tuple[Callable[[nn.Module], nn.Module], str]] = {
    "logits x 1000": (lambda n: Around(n, after=lambda z: 1000 * z), "zero-gradients"),
    "logits x 30": (lambda n: Around(n, after=lambda z: 30 * z), "zero-gradients"),
    "rounded to 4 levels": (lambda n: Around(n, quantised(4)), "non-differentiable"),
    "rounded to 16 levels": (lambda n: Around(n, quantised(16)), "zero-gradients"),
    "ReLU of the images": (lambda n: Around(n, F.relu), "zero-gradients"),
    "images in bounds": (lambda n: Around(n, lambda x: F.hardtanh(x, 0, 1)), "zero-gradients"),
    "without what is not positive": (lambda n: Around(n, lambda x: x.where(x > 0, 0)), "zero-gradients"),
    "dark pixels left out": (lambda n: Around(n, lambda x: F.hardshrink(x, 0.1)), "non-differentiable"),
    "faint pixels left out": (lambda n: Around(n, lambda x: F.hardshrink(x, 0.05)), "non-differentiable"),
    "what exceeds a threshold": (lambda n: Around(n, lambda x: F.threshold(x, 0.07, 0)), "non-differentiable"),
    "signs": (lambda n: Around(n, lambda x: (x - 0.5).sign() / 2 + 0.5), "zero-gradients"),
    "thermometer": (lambda n: Around(n, thermometer), "non-differentiable"),
    "JPEG": (lambda n: Around(n, as_jpeg), "non-differentiable"),
    "JPEG, straight through": (lambda n: Around(n, passed_jpeg), "non-differentiable"),
    "detached": (lambda n: Around(n, lambda x: x.detach()), "non-differentiable"),
    "straight through": (lambda n: Around(n, straight_through(4)), "non-differentiable"),
    "another function's gradient": (lambda n: Around(n, Copied.apply), "non-differentiable"),
    "half detached": (lambda n: Around(n, lambda x: 0.1 * x + 0.9 * x.detach()), "non-differentiable"),
    "shattered": (lambda n: Around(n, lambda x: x + 0.02 * torch.sin(400 * x)), "non-differentiable"),
    "clipped outputs": (lambda n: Around(n, after=lambda z: z.clamp(-0.05, 0.05)), "zero-gradients"),
    "steep sigmoid": (lambda n: Around(n, after=lambda z: (1000 * z).sigmoid()), "probabilities"),
    "one-hot": (lambda n: Around(n, after=one_hot), "non-differentiable"),
    "constant": (lambda n: Constant(10), "chance"),
    "noise": (lambda n: Around(n, lambda x: x + 0.05 * torch.randn_like(x)), "stochastic"),
    "little noise": (lambda n: Around(n, lambda x: x + 0.003 * torch.randn_like(x)), "stochastic"),
    "noise of NumPy": (lambda n: Around(n, with_numpy_noise), "stochastic"),
    "functional dropout": (lambda n: Around(n, lambda x: F.dropout(x, 0.2)), "stochastic"),
    "stochastic depth": (lambda n: nn.Sequential(DropPath(), n), "stochastic"),
    "dropout left on": (lambda n: Deaf(n, nn.Dropout(0.2)), "stochastic"),
    "batch-norm left in training mode": (lambda n: Deaf(n, nn.BatchNorm2d(1)), "batch-dependence"),
    "statistics of the batch": (lambda n: Around(n, of_the_batch), "batch-dependence"),
    "its neighbour's pixels": (lambda n: Around(n, lambda x: 0.8 * x + 0.2 * x.roll(1, 0)), "batch-dependence"),
    "the batch's mean logits": (lambda n: Around(n, after=lambda z: z - z.mean(0)), "batch-dependence"),
    "softmax": (lambda n: Around(n, after=lambda z: z.softmax(1)), "probabilities"),
    "cold softmax": (lambda n: Around(n, after=lambda z: (20 * z).softmax(1)), "probabilities"),
    "warm softmax": (lambda n: Around(n, after=lambda z: (z / 5).softmax(1)), "probabilities"),
    "half softmax": (lambda n: Around(n, after=half), "probabilities"),
    "bfloat16 softmax": (lambda n: Around(n, after=lambda z: z.softmax(1).bfloat16()), "probabilities"),
    "percentages": (lambda n: Around(n, after=lambda z: 100 * z.softmax(1)), "probabilities"),
    "sigmoid": (lambda n: Around(n, after=torch.sigmoid), "probabilities"),
    "divided by 255 in the network": (lambda n: Around(n, lambda x: x / 255), "preprocessing"),
    "bytes": (lambda n: Around(n, lambda x: 255 * x), "preprocessing"),
    "normalised with other figures": (lambda n: Around(n, lambda x: (x - 0.5) / 0.1), "preprocessing"),
    "inverted": (lambda n: Around(n, lambda x: 1 - x), "preprocessing"),
    "transposed": (lambda n: Around(n, lambda x: x.transpose(2, 3)), "preprocessing"),
    "labels shifted": (lambda n: Around(n, after=lambda z: z.roll(1, 1)), "label-order"),
    "labels shifted back": (lambda n: Around(n, after=lambda z: z.roll(-2, 1)), "label-order"),
    "labels reversed": (lambda n: Around(n, after=lambda z: z.flip(1)), "label-order"),
    "two labels exchanged": (lambda n: Around(n, after=lambda z: z[:, [0, 1, 5, 3, 4, 2, 6, 7, 8, 9]]), "label-order"),
}
"""By name: how it is made from an honest network for grey images in ten classes, and the warning expected."""

HONEST: dict[str, Callable[[nn.Module], nn.Module]] = {
    "itself": lambda n: n,
    "log-softmax": lambda n: Around(n, after=lambda z: z.log_softmax(1)),
    "logits x 3": lambda n: Around(n, after=lambda z: 3 * z),
    "logits / 100": lambda n: Around(n, after=lambda z: z / 100),
    "positive logits": lambda n: Around(n, after=lambda z: z - z.amin(1, keepdim=True) + 1),
    "256 levels, straight through": lambda n: Around(n, straight_through(256)),
    "float64": lambda n: Around(n, after=lambda z: z.double()),
    "bfloat16 logits": lambda n: Around(n, after=lambda z: z.bfloat16()),
    "bfloat16": lambda n: Around(copy.deepcopy(n).bfloat16(), lambda x: x.bfloat16(), lambda z: z.float()),
    "refuses other values": lambda n: Around(n, refusing),
    "one more class": lambda n: Around(n, after=lambda z: F.pad(z, (0, 1), value=-20.0)),
    "masked classes": lambda n: Around(n, after=lambda z: F.pad(z, (0, 2), value=-float("inf"))),
    "blurred": lambda n: Around(n, lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)),
    "the brightest of neighbours": lambda n: Around(n, lambda x: F.max_pool2d(F.pad(x, (0, 1, 0, 1)), 2, 1)),
    "clamped to [0, 1]": lambda n: Around(n, lambda x: x.clamp(0, 1)),
    "mapped over images": Mapped,
    "scripted": lambda n: Around(scripted(n)),
}
