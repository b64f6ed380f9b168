"""The record as Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Steps = Mapping[str, Mapping[str, Any]]


def markdown(record: Mapping[str, Any]) -> str:
    """Every result so far, what failed and what is left."""
    steps: Steps = record["steps"]
    sections = [
        "# On a GPU",
        _machines(record["machines"]),
        _ceilings(steps),
        "## Is it right?",
        _views(steps),
        _checks(steps),
        "## How fast?",
        _speed(steps),
        _on_ranks(steps),
        _profile(steps),
        _attacks(steps),
        "## What does enlarging buy?",
        _gains(steps),
        "\n".join(f"- {sentence}" for sentence in record.get("comparisons", [])),
        _unfinished(steps),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    body = ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    if not body:
        return ""
    return "\n".join(["| " + " | ".join(head) + " |", "|" + " --- |" * len(head), *body])


def _done(steps: Steps, start: str) -> Iterable[tuple[str, Any]]:
    for name, step in steps.items():
        if name.startswith(start) and step["status"] == "done":
            yield name.removeprefix(start), step["values"]


def _machines(machines: Sequence[Mapping[str, Any]]) -> str:
    return "\n".join("- " + ", ".join(f"{name} {value}" for name, value in machine.items()) for machine in machines)


def _ceilings(steps: Steps) -> str:
    rows = [
        (name, f"{value / 1e12:.4g} {'TB/s' if name == 'copy' else 'TFLOP/s'}")
        for _, values in _done(steps, "ceilings")
        for name, value in values.items()
        if name != "line"
    ]
    return _table(("ceiling", "measured"), rows)


def _views(steps: Steps) -> str:
    rows = [
        (
            name,
            label,
            row["folded"],
            f"{row['logits']:.1e}",
            f"{row['gradient']:.1e}",
            f"{100 * row['same_sign']:.1f} %",
            "yes" if row["ok"] else "**no**",
        )
        for start in ("view of ", "compiled view of ")
        for name, values in _done(steps, start)
        for label, row in values["rows"].items()
    ]
    head = ("network", "view", "folded", "logits", "gradient", "same sign", "within the limit")
    text = "Relative distance of each view from the plain network in float64."
    return text + "\n\n" + _table(head, rows) if rows else ""


def _checks(steps: Steps) -> str:
    rows = []
    for start, what in (("defence ", "defence"), ("attacks", "attack"), ("verdicts", "verdicts"), ("resume", "resume")):
        for name, values in _done(steps, start):
            for label, row in values.get("rows", {name: values}).items():
                if "ok" in row:
                    numbers = {key: value for key, value in row.items() if key not in ("ok", "line")}
                    figures = ", ".join(f"{key} {value:.3g}" for key, value in numbers.items())
                    rows.append((what, label, figures, "yes" if row["ok"] else "**no**"))
    return _table(("check", "of", "figures", "right"), rows)


def _speed(steps: Steps) -> str:
    rows = []
    for start in ("step of ", "compiled step of "):
        for name, values in _done(steps, start):
            plain = steps.get(f"step of {name}", {}).get("values", {}).get("rows", {}).get("plain", {})
            for label, row in values["rows"].items():
                if "error" in row:
                    rows.append((name, label, row["error"], "", "", ""))
                    continue
                ratio = f"{plain['median_s'] / row['median_s']:.2f}" if "median_s" in plain else ""
                share = f"{100 * row['share_of_peak']:.0f} %" if "share_of_peak" in row else ""
                memory = f"{row['memory_gib']:.1f}" if "memory_gib" in row else ""
                figures = (f"{1e3 * row['median_s']:.1f} ms", f"{row['images_per_s']:,.0f}")
                rows.append((name, label, *figures, ratio, share, memory))
    return _table(("training step", "kind", "median", "images/s", "times plain", "share of ceiling", "GiB"), rows)


def _on_ranks(steps: Steps) -> str:
    rows = [
        (
            name.partition(" of ")[2].partition(",")[0],
            label,
            f"{1e3 * row['median_s']:.1f} ms",
            f"{row['images_per_s']:,.0f}",
            f"{row['each']:,.0f}",
            f"{100 * row['efficiency']:.0f} %" if "efficiency" in row else "",
        )
        for name, values in _done(steps, "step on ")
        for label, row in values["rows"].items()
    ]
    return _table(("training step, bf16", "on", "median", "images/s", "for each rank", "efficiency"), rows)


def _profile(steps: Steps) -> str:
    parts = []
    for _, values in _done(steps, "profile"):
        rows = [
            (
                row["kernel"][:90].replace("|", "/"),
                row["calls"],
                f"{1e3 * row['seconds']:.2f}",
                f"{100 * row['share']:.0f} %",
            )
            for row in values["rows"]
        ]
        times = ", ".join(f"{name} {1e3 * values[f'{name}_s']:.1f} ms" for name in ("wall", "host", "device"))
        parts.append(f"One step in bf16, batch {values['batch']}: {times}.\n")
        parts.append(_table(("kernel", "calls", "ms", "share"), rows))
    for _, values in _done(steps, "images"):
        parts.append(
            f"\n{values['decoded']:,} images decoded in {values['decode_s']:.1f} s; "
            f"{values['augmented_images_per_s']:,.0f} images/s read and augmented; "
            f"a view's weights copied in {1e3 * values['copy_weights_s']:.2f} ms."
        )
    return "\n".join(parts)


def _attacks(steps: Steps) -> str:
    rows = [
        (
            name,
            values["images"],
            f"{row['ours_s']:.1f} s",
            f"{row['plain_s']:.1f} s" if "plain_s" in row else "not run",
            f"{row['ratio']:.2f}" if "ratio" in row else "",
            f"{100 * row['ours_robust']:.1f} %",
            f"{100 * row['plain_robust']:.1f} %" if "plain_robust" in row else "",
            row.get("differ", ""),
        )
        for rest, values in _done(steps, "attacks against plain")
        for name, row in values["rows"].items()
    ]
    return _table(("attack", "images", "ours", "plain", "ratio", "robust, ours", "robust, plain", "differ"), rows)


def _gains(steps: Steps) -> str:
    trained = dict(_done(steps, "train "))
    rows = []
    for _, values in _done(steps, "evaluate "):
        training = trained.get(values["run"], {})
        for which in ("best", "last"):
            of = values[which]
            epoch = training.get("best_epoch", "") if which == "best" else training.get("epochs", "")
            rows.append(
                (
                    values["run"] + _how(training),
                    f"{which} ({epoch})",
                    values["images"],
                    _rate(of["pgd"]["clean_accuracy"]),
                    _rate(of["pgd"]["robust_accuracy"]),
                    _rate(of["autoattack"]["robust_accuracy"]),
                    f"{training['flops']:.2e}" if training else "",
                    f"{training['train_s']:.0f} s" if training else "",
                )
            )
    head = ("run", "epoch", "images", "clean", "PGD-20", "AutoAttack", "training operations", "training")
    return _table(head, rows)


def _how(training: Mapping[str, Any]) -> str:
    sizes = training.get("ranks", [1])
    several = [f"{' and '.join(map(str, sizes))} ranks"] if max(sizes) > 1 else []
    notes = [*several, *(["carried over"] if training.get("restored") else [])]
    return f" ({', '.join(notes)})" if notes else ""


def _rate(rate: Mapping[str, Any]) -> str:
    low, high = rate["interval"]
    return f"{100 * rate['value']:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"


def _unfinished(steps: Steps) -> str:
    parts = []
    for name, step in steps.items():
        if step["status"] == "failed":
            parts.append(f"- {name} failed: {step['error']}\n\n```\n{step['traceback'].rstrip()}\n```")
        elif step["status"] == "begun":
            parts.append(f"- {name} was not finished by a call that ended, {step['attempts']} times")
        elif step["status"] == "pending":
            parts.append(f"- {name} goes on in the next call: {step['progress']}")
    return "## Not finished\n\n" + "\n".join(parts) if parts else ""
