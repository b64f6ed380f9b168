"""Commands on the pages that no test runs, each with its reason; `test_pages_run` runs all others.

A whole block that is not run has its reason on the page itself, in a comment ``<!-- not run: ... -->`` in front of it.
"""

MINUTES = "takes minutes"
CLUSTER = "needs a cluster, or starts processes of its own"
INTERNET = "needs a data set or weights from the internet"
LIBRARY = "needs a compiled torchvision"
WEIGHTS = "tests/networks/test_checkpoints.py opens such files"
ELSEWHERE = "takes up what another page makes"

NOT_RUN: dict[tuple[str, str], tuple[str, str]] = {
    ("README.md", "demo"): (MINUTES, "tests/studies/test_demo.py makes a small one"),
    ("docs/demo.md", "demo"): (MINUTES, "tests/studies/test_demo.py makes a small one"),
    ("docs/advise.md", "advise resnet8 --data digits --eps 0.15 --epochs 10 --budget 4x"): (
        MINUTES,
        "tests/studies/test_advice.py makes a small one",
    ),
    ("docs/cluster.md", "train resnet18 --data cifar10"): (CLUSTER, "tests/cli/test_ranks.py has two processes"),
    ("docs/cluster.md", "evaluate runs/RUN"): (CLUSTER, "tests/cli/test_ranks.py has two processes"),
    ("docs/cluster.md", "train resnet18 --data cifar10 --resume"): (CLUSTER, "it names two machines"),
    ("docs/cluster.md", "train resnet18 --data cifar10 --out runs --resume"): (CLUSTER, "of Slurm"),
    ("docs/cluster.md", "sweep study.yaml --executor ray --address HOST:6379 --cpus-per-run 8 --gpus-per-run 1"): (
        CLUSTER,
        "tests/studies/test_ray.py has one",
    ),
    ("docs/cluster.md", "sweep study.yaml --executor ray"): (CLUSTER, "tests/studies/test_ray.py has one"),
    ("docs/cluster.md", "sweep study.yaml --executor ray --address $first:6379 --cpus-per-run 8 --gpus-per-run 1"): (
        CLUSTER,
        "of Slurm",
    ),
    ("docs/cluster.md", "evaluate runs/RUN --attack autoattack --executor ray --address HOST:6379 --cpus-per-run 4"): (
        CLUSTER,
        "tests/evaluation/test_ray_workers.py has one",
    ),
    ("docs/cluster.md", "evaluate runs/RUN --attack autoattack --executor ray"): (
        CLUSTER,
        "tests/evaluation/test_ray_workers.py has one",
    ),
    ("docs/command-line.md", "evaluate runs/RUN --corruptions CIFAR-10-C"): (
        INTERNET,
        "tests/runs/test_corruptions.py has such files",
    ),
    ("docs/command-line.md", "evaluate resnet18 --strides 1122 --weights FILE.pt --data cifar10 --attack autoattack"): (
        MINUTES,
        WEIGHTS,
    ),
    (
        "docs/command-line.md",
        "evaluate resnet18 --strides 1122 --weights paras.pt --data cifar10 --attack autoattack",
    ): (
        MINUTES,
        WEIGHTS,
    ),
    (
        "docs/command-line.md",
        "evaluate resnet18 --enlarge upsample=2 --weights rob_paras.pt --data cifar10 --attack autoattack",
    ): (MINUTES, WEIGHTS),
    ("docs/command-line.md", "search resnet8 --budget 4x --eps 0.15"): (MINUTES, "tests/studies/test_search.py"),
    ("docs/command-line.md", "theory"): (MINUTES, "tests/analysis/test_theory.py"),
    ("docs/command-line.md", "reproduce strides --scale cpu"): (MINUTES, "tests/studies/test_ready.py"),
    ("docs/command-line.md", "compare evaluation/network-weights larger"): (ELSEWHERE, "how-to/evaluate-mine.md"),
    ("docs/data.md", "train --data cifar10 --extra-data 1m.npz --extra-share 0.7"): (
        INTERNET,
        "tests/data/test_extra.py has such a file",
    ),
    ("docs/data.md", "evaluate runs/RUN --corruptions CIFAR-10-C"): (
        INTERNET,
        "tests/runs/test_corruptions.py has such files",
    ),
    ("docs/defenses.md", "train --recipe ours-trades-vgg16-11222-cifar100"): (INTERNET, "tests/config/test_recipes.py"),
    ("docs/diagnose/README.md", "diagnose package.module:function --data photos.tar.xz --norm linf --eps 8/255"): (
        ELSEWHERE,
        "its names stand for anything",
    ),
    ("docs/enlarge.md", "enlarge torchvision:vit_b_16 --upsample 2"): (LIBRARY, "tests/enlarging/test_zoo.py"),
    ("docs/enlarge.md", "train torchvision:resnet18 --enlarge last --data cifar10"): (LIBRARY, "tests/networks"),
    ("docs/enlarge.md", "theory --out theory"): (MINUTES, "tests/analysis/test_theory.py"),
    ("docs/published.md", "train resnet18 --protocol published --data svhn --defense trades --step-size 0.007"): (
        INTERNET,
        "tests/training/test_recipes.py",
    ),
    ("docs/published.md", "reproduce strides --scale cpu"): (MINUTES, "tests/studies/test_ready.py"),
    ("docs/published.md", "reproduce strides --scale full --data PATH/cifar10.tar.xz --dry-run"): (
        MINUTES,
        "tests/studies/test_ready.py",
    ),
    ("docs/published.md", "reproduce corruptions --scale full --corruptions CIFAR-10-C"): (
        INTERNET,
        "tests/studies/test_ready.py",
    ),
    ("docs/studies.md", "search resnet8 --budget 4x --eps 0.15 --steps 5 --epochs 9"): (
        MINUTES,
        "tests/studies/test_search.py",
    ),
    ("docs/studies.md", "search candidates.yaml --budget 2x --measure memory"): (
        MINUTES,
        "tests/studies/test_search.py",
    ),
    ("docs/theory.md", "theory --out theory"): (MINUTES, "tests/analysis/test_theory.py"),
}
MOST = 34
"""How many there may be: a new one needs a good reason, and this number raised."""
