"""The hyper-parameters of a training run, without PyTorch, so that the command line need not import it."""

from dataclasses import dataclass
from typing import Literal

from robustmaps.engine.errors import InputError, unknown
from robustmaps.engine.numbers import check_at_least, check_whole
from robustmaps.training._schedule import parse_schedule
from robustmaps.training.loggers._registry import check_loggers, parse_loggers

OptimizerName = Literal["sgd", "adam", "adamw"]


@dataclass(frozen=True)
class TrainOptions:
    """The hyper-parameters of a run, with published defaults (arXiv 2202.12435, arXiv 2002.11569).

    Attributes:
        epochs: passes over the training images
        batch_size: images per step
        optimizer: optimizer: sgd (with momentum), adam or adamw
        lr: peak learning rate
        momentum: momentum of sgd
        weight_decay: weight decay, applied to all parameters
        schedule: learning rate schedule: step (divided by 10 after 10/11 and 21/22 of the run, the paper's 100 and 105
            of 110 epochs), step:100,150 (at these epochs), step:60,120,160@0.2 (times 0.2), step:58,88@0.1,0.005 (to
            these shares of the peak), cosine, one-cycle or constant
        ema: decay of averaged weights, e.g. 0.999, which are then validated and saved as best (0 for none)
        swa: share of the run after which the weights of every epoch are averaged instead (arXiv 1803.05407), e.g. 0.5;
            batch-norm statistics of the average are measured anew, on what the defence trains on (0 for never)
        label_smoothing: share of the target's probability that is spread over all classes
        cutmix: share of the batches in which a box of each image comes from another one (arXiv 1905.04899); the attack
            works against the label of the larger part
        eps_warmup: epochs over which the training attack's budget grows from nothing to its full size
        clip_grad: largest l2 norm of the whole gradient; longer ones are shortened to it (0 for no limit)
        accumulate: parts in which a batch is attacked and differentiated, one after the other, to save memory;
            batch-norms and weight perturbations then see a part at a time
        checkpoint_stages: let the network's stages run again in backward passes, which takes less memory and longer:
            on, off, or auto, where a step would need more than half of the free memory
        sync_batch_norm: under torchrun, let batch-norms normalise by the images of all processes, as one process would
        seed: seed of all random draws
        device: device to compute on: auto, cpu, cuda, cuda:1 or mps
        precision: precision: auto (fp32 or bf16, whichever a timed pass of this network shows to be faster, compiled if
            the run is long), fp32, tf32 (float32 with TF32 products, on CUDA only) or bf16
        compile: run attack and training step through torch.compile; pays off after a minute of training
        validate_every: epochs between two validations; the last epoch is always validated
        checkpoint_every_s: seconds between two checkpoints within an epoch
        memory_share: share of the device's free memory; training images that take more stay in their file and are read
            batch by batch (0 for always)
        workers: threads that read such images ahead
        tensorboard: the same as log tensorboard, by its name in earlier versions
        log: loggers that get the figures of every epoch, with commas: tensorboard, wandb or mlflow (each needs pip
            install 'robustmaps[NAME]'; their own environment variables choose servers and projects)

    Raises:
        InputError: a value is out of range.
    """

    epochs: int = 110
    batch_size: int = 128
    optimizer: OptimizerName = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    schedule: str = "step"
    ema: float = 0.0
    swa: float = 0.0
    label_smoothing: float = 0.0
    cutmix: float = 0.0
    eps_warmup: float = 0.0
    clip_grad: float = 0.0
    accumulate: int = 1
    checkpoint_stages: Literal["auto", "on", "off"] = "auto"
    sync_batch_norm: bool = False
    seed: int = 0
    device: str = "auto"
    precision: Literal["auto", "fp32", "tf32", "bf16"] = "auto"
    compile: bool = False
    validate_every: int = 1
    checkpoint_every_s: float = 60.0
    memory_share: float = 0.5
    workers: int = 2
    tensorboard: bool = False
    log: str | None = None

    def __post_init__(self) -> None:
        check_whole("epochs", self.epochs, 1)
        check_whole("batch_size", self.batch_size, 1)
        check_at_least("lr", self.lr, 0, exclusive=True)
        if not 0 <= self.momentum < 1:
            raise InputError(f"momentum={self.momentum!r}: expected a number in [0, 1), such as 0.9")
        check_at_least("weight_decay", self.weight_decay, 0)
        check_whole("validate_every", self.validate_every, 1)
        check_at_least("checkpoint_every_s", self.checkpoint_every_s, 0)
        check_whole("seed", self.seed, 0)
        check_whole("workers", self.workers, 1)
        if not 0 <= self.memory_share <= 1:
            raise InputError(f"memory_share={self.memory_share!r}: expected a share of free memory in [0, 1]")
        if self.optimizer not in ("sgd", "adam", "adamw"):
            raise unknown("optimizer", self.optimizer, ["sgd", "adam", "adamw"])
        check_at_least("eps_warmup", self.eps_warmup, 0)
        check_at_least("clip_grad", self.clip_grad, 0)
        check_whole("accumulate", self.accumulate, 1)
        if self.checkpoint_stages not in ("auto", "on", "off"):
            raise unknown("checkpoint_stages", self.checkpoint_stages, ["auto", "on", "off"])
        if self.checkpoint_stages == "on" and self.compile:
            raise InputError("checkpoint_stages=on with compile: compiled passes decide what they keep; leave one out")
        if self.sync_batch_norm and (self.compile or self.checkpoint_stages == "on"):
            other = "compile" if self.compile else "checkpoint_stages=on"
            raise InputError(
                f"sync_batch_norm with {other}: passes that exchange statistics run as they are; leave one out"
            )
        if not 0 <= self.ema < 1:
            raise InputError(f"ema={self.ema!r}: expected a decay in [0, 1), such as 0.999; 0 for none")
        if not 0 <= self.swa < 1:
            raise InputError(f"swa={self.swa!r}: expected a share of the run in [0, 1), such as 0.5; 0 for none")
        if self.ema and self.swa:
            raise InputError(f"ema={self.ema!r} and swa={self.swa!r}: weights are averaged one way or the other")
        if not 0 <= self.label_smoothing < 1:
            raise InputError(f"label_smoothing={self.label_smoothing!r}: expected a share in [0, 1), such as 0.1")
        if not 0 <= self.cutmix <= 1:
            raise InputError(f"cutmix={self.cutmix!r}: expected a share of the batches in [0, 1]")
        parse_schedule(self.schedule, self.epochs)
        parse_loggers(self.log)

    def check(self) -> None:
        """Refuse what is needed to train, and not to read that a run was trained so.

        Raises:
            InputError: there is no logger of a name.
        """
        check_loggers(self.loggers)

    @property
    def loggers(self) -> tuple[str, ...]:
        """The names of the loggers."""
        return tuple(dict.fromkeys((*(["tensorboard"] if self.tensorboard else []), *parse_loggers(self.log))))


# The options that may change when a run is resumed, since they don't affect its result; and what it says of where its
# other values come from.
INCIDENTAL = frozenset(
    {
        *("device", "checkpoint_every_s", "checkpoint_stages", "memory_share", "workers", "tensorboard", "log"),
        *("recipe", "protocol"),
    },
)
