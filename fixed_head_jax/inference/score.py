"""How often predictions are right, where the folders of photographs are named as classes are."""

import collections
import csv
from collections.abc import Collection
from pathlib import Path

_SHOWN = 8  # classes, and confusions, on the screen


class Score:
    """Counts pairs of label and prediction.

    Args:
        class_names: what a folder has to be called for its photographs to have a label; of a
            photograph in several such folders, the innermost counts.
    """

    def __init__(self, class_names: Collection[str]):
        self._class_names = frozenset(class_names)
        self._pairs: collections.Counter[tuple[str, str]] = collections.Counter()

    def add(self, path: Path, prediction: str) -> None:
        """Counts a photograph, if it has a label."""
        label = next((p.name for p in path.parents if p.name in self._class_names), None)
        if label is not None:
            self._pairs[label, prediction] += 1

    def describe(self) -> str:
        """Says the accuracy, over all and of the worst classes; empty without labels."""
        if not self._pairs:
            return ""
        counts, right = collections.Counter[str](), collections.Counter[str]()
        for (label, prediction), count in self._pairs.items():
            counts[label] += count
            right[label] += count * (label == prediction)
        shares = {label: 100 * right[label] / counts[label] for label in counts}
        mean = sum(shares.values()) / len(shares)
        total, hits = sum(counts.values()), sum(right.values())
        lines = [
            f"accuracy {100 * hits / total:.2f} % on {total:,} photographs in folders named as "
            f"classes, {mean:.2f} % as the mean over {len(counts):,} classes"
        ]
        worst = sorted(shares, key=lambda label: (shares[label], label))[:_SHOWN]
        lines += [
            f"  {label}: {shares[label]:.1f} % of {counts[label]:,}{self._confusions(label)}"
            for label in worst
        ]
        if len(shares) > len(worst):
            lines.append(f"  the other {len(shares) - len(worst):,} classes are better")
        return "\n".join(lines)

    def write(self, path: Path) -> None:
        """Writes the confusion matrix, a line for each pair that came up."""
        with path.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(("label", "prediction", "count"))
            table.writerows((*pair, count) for pair, count in sorted(self._pairs.items()))

    def __bool__(self) -> bool:
        return bool(self._pairs)

    def _confusions(self, label):
        wrong = {p: n for (one, p), n in self._pairs.items() if one == label and p != label}
        if not wrong:
            return ""
        most = max(wrong, key=lambda prediction: wrong[prediction])
        return f", taken most for {most} ({wrong[most]:,})"
