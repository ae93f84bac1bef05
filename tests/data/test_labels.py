"""Labels: kept beside the data, checked, and counted for a fraction."""

import os
from pathlib import Path

import numpy as np
import pytest

from fixed_head_jax import data
from fixed_head_jax.data import records, sources


def test_labels_are_kept_beside_the_data(digits_dir, monkeypatch):
    source = sources.open_source("digits", "train[:100]", digits_dir)
    labels = source.labels
    (file,) = Path(digits_dir).glob("digits/*/labels-train%5B%3A100%5D-*.npy")
    np.testing.assert_array_equal(np.load(file), labels)
    with monkeypatch.context() as patch:
        patch.setattr(records, "scan_labels", None)  # read again without a scan
        again = sources.open_source("digits", "train[:100]", digits_dir).labels
    np.testing.assert_array_equal(again, labels)
    file.write_bytes(file.read_bytes()[:200])  # cut off: scanned and written anew
    np.testing.assert_array_equal(
        sources.open_source("digits", "train[:100]", digits_dir).labels, labels
    )
    np.testing.assert_array_equal(np.load(file), labels)


def test_labels_of_other_files_are_not_taken(tmp_path):
    sources.open_source("digits", "test", str(tmp_path)).labels.sum()
    (shard,) = tmp_path.glob("digits/*/*test*array_record*")
    os.utime(shard, ns=(1, 1))  # as if the files had been replaced
    assert sources.open_source("digits", "test", str(tmp_path)).labels.shape == (355,)
    assert len(list(tmp_path.glob("digits/*/labels-test-*.npy"))) == 2


def test_a_damaged_shard_is_named(tmp_path):
    sources.open_source("digits", "test", str(tmp_path))
    (shard,) = tmp_path.glob("digits/*/*test*array_record*")
    shard.write_bytes(shard.read_bytes()[:3000])
    source = sources.open_source("digits", "test", str(tmp_path))
    with pytest.raises(records.BadRecordError, match="cannot read split 'test' of 'digits'"):
        _ = source.labels


def test_labels_without_a_place_to_keep_them(digits, tmp_path):
    missing = tmp_path / "missing" / "labels.npy"
    labels = records.cached_labels(digits.records, missing, 2)
    np.testing.assert_array_equal(labels, digits.labels)
    assert not missing.parent.exists()


def test_a_wrong_label_is_named(digits):
    options = {field: getattr(digits, field) for field in digits.__dataclass_fields__}
    source = sources.Source(**{**options, "num_classes": 9})
    with pytest.raises(records.BadRecordError, match="bad record at index 9 .*label 9 is outside"):
        _ = source.labels


def test_a_fraction_keeps_its_share_of_every_class(digits_dir):
    dataset = data.open_dataset("digits", "train", digits_dir, first_classes=5, fraction=0.1)
    whole = sources.open_source("digits", "train", digits_dir, first_classes=5)
    counts = np.bincount(whole.labels)
    np.testing.assert_array_equal(np.bincount(dataset.source.labels), np.round(counts * 0.1))
    np.testing.assert_array_equal(dataset.arrays()["label"], dataset.source.labels)
