"""The section of the network. No PyTorch here."""

from dataclasses import dataclass
from typing import Literal

from robustmaps.config._enlarge_option import parse_surgery
from robustmaps.config._growing import parse_shares
from robustmaps.engine.errors import InputError
from robustmaps.models import Pool, UpsampleMode


@dataclass(frozen=True)
class ModelConfig:
    """The network.

    Attributes:
        model: name of a network, see `robustmaps models`, also with other widths such as resnet18_w0.25; or
            torchvision:NAME, timm:NAME, hf:OWNER/NAME or MODULE:FUNCTION
        strides: strides of a built-in network's downsampling steps, e.g. 1122 (default: the architecture's own)
        upsample: factor by which images are upsampled in front of the network
        upsample_mode: interpolation of the upsampled images (area differs from nearest for a factor such as 1.5)
        pool: pooling of a built-in network's last map; max is what the theory compares avg with (default:
            avg)
        enlarge: enlargement of any network: upsample=2, first, last, or numbers of downsampling steps such as 0,2;
            dilate keeps what a trained network computes, silu replaces every ReLU; several with commas, e.g.
            last,dilate; each part is an option of its own too, as in `robustmaps enlarge` (default: none)
        enlarge_at: share of the epochs after which strides, upsample or enlarge take effect, e.g. 0.8; until then the
            plain network is trained, whose weights go on; several with commas let upsample grow step by step, e.g.
            0.5,0.8 (default: from the first epoch)
        init_from: weights to begin with: a run, a weights file, or a folder that `robustmaps enlarge` saved; they
            decide network, data and budget where these are left out (default: random weights)
        weights: file with weights to begin with, of any program, as in `robustmaps evaluate`; of a run in init_from
            best, best-clean or last (default: random weights, or the best)
        init_sha256: hash of these weights, filled in where left out; others are then refused
        init: random weights of a built-in network: kaiming for all convolutions, or published for those that
            arXiv 2202.12435 draws for its family

    Raises:
        InputError: ``enlarge`` or ``enlarge_at`` can't be read.
    """

    model: str = "resnet8"
    strides: str | None = None
    upsample: float = 1.0
    upsample_mode: UpsampleMode = "nearest"
    pool: Pool | None = None
    enlarge: str | None = None
    enlarge_at: str | None = None
    init_from: str | None = None
    weights: str | None = None
    init_sha256: str | None = None
    init: Literal["kaiming", "published"] = "kaiming"

    @property
    def begins_with_weights(self) -> bool:
        """Whether training begins with weights that are given."""
        return self.init_from is not None or self.weights is not None

    def check(self, base: "ModelConfig") -> None:
        """Refuse what would be without effect, where it differs from what holds already.

        Raises:
            InputError: a way of upsampling without any, or of drawing weights that are not drawn.
        """
        if self.init != base.init and (self.begins_with_weights or ":" in self.model):
            drawn = "begins with given weights" if self.begins_with_weights else "is no built-in network"
            raise InputError(f"init={self.init}: {self.model} {drawn}; leave init out")
        if self.upsample == 1 and self.upsample_mode != base.upsample_mode:
            raise InputError(f"upsample_mode={self.upsample_mode}: nothing is upsampled; give upsample, such as 2")

    def __post_init__(self) -> None:
        if self.enlarge is not None and parse_surgery(self.enlarge).is_none:
            raise InputError(f"enlarge={self.enlarge!r}: changes nothing; expected upsample=2, or last,dilate")
        parse_shares(self.enlarge_at)
