"""What several test modules use: small images, small networks, and one that was adversarially trained."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import HealthCheck, settings
from torch import Tensor, nn

from robustmaps import TrainOptions, data, fit
from robustmaps.attacks import PGD
from robustmaps.data import Augmentation, Dataset, ImageSet
from robustmaps.defenses import AT

DIGITS_EPS = 0.15

# Networks this small gain nothing from more threads, and lose much where cores are shared.
torch.set_num_threads(1)
# How fast examples are drawn says how busy the machine is, and nothing about the code.
settings.register_profile("robustmaps", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("robustmaps")


def small_cnn(channels: int = 1, size: int = 8, classes: int = 10, *, seed: int = 0) -> nn.Sequential:
    """Two convolutions with batch-norms, untrained, with the same weights for the same seed."""
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(channels, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * (size // 2) ** 2, classes),
        )


def random_images(count: int, channels: int = 1, size: int = 8, *, seed: int = 0) -> Tensor:
    return torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def make_cnn() -> Callable[..., nn.Sequential]:
    return small_cnn


@pytest.fixture
def make_images() -> Callable[..., Tensor]:
    return random_images


@pytest.fixture(scope="session")
def make_dataset() -> Callable[..., Dataset]:
    """Two classes that differ in brightness, so that little training goes a long way."""

    def split(count: int, generator: torch.Generator) -> ImageSet:
        labels = torch.arange(count) % 2
        noise = torch.randint(0, 128, (count, 1, 6, 6), generator=generator)
        return ImageSet((noise + 64 * labels[:, None, None, None]).to(torch.uint8), labels)

    def make(train: int = 40, validation: int = 12, seed: int = 0) -> Dataset:
        generator = torch.Generator().manual_seed(seed)
        return Dataset(
            name="bright",
            train=split(train, generator),
            validation=split(validation, generator),
            test=split(40, generator),
            classes=("dark", "bright"),
            mean=(0.4,),
            std=(0.2,),
            augmentation=Augmentation(pad=1, flip=True),
            spec="bright",
            fingerprint=f"bright-{train}-{validation}-{seed}",
        )

    return make


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROBUSTMAPS_CACHE", str(tmp_path_factory.mktemp("digits")))
        return data.load("digits")


@pytest.fixture(scope="session")
def robust_network(digits: Dataset) -> nn.Module:
    """Trained on digits against l_inf 0.15 for a few seconds; not to be changed by tests."""
    options = TrainOptions(epochs=6, batch_size=64, lr=0.05, schedule="one-cycle", precision="fp32", device="cpu")
    network = small_cnn()
    fit(network, digits, AT(PGD(eps=DIGITS_EPS, steps=3)), options)
    return network.eval()


@pytest.fixture(scope="session")
def digits_test(digits: Dataset) -> tuple[Tensor, Tensor]:
    return digits.test.tensors()
