"""Finds a dataset on disk in the format we read, or says in one line what is missing."""

import contextlib
import difflib
import io
import os
import tempfile
from pathlib import Path

import tensorflow_datasets as tfds

from fixed_head_jax.data.builders import BUILDERS

_PREPARE = (
    'python -c "import tensorflow_datasets as tfds; '
    "tfds.builder('{name}', data_dir={data_dir!r}, file_format='array_record')"
    '.download_and_prepare()"'
)


def find(name: str, data_dir: str = "") -> tfds.core.DatasetBuilder:
    """Returns the TFDS builder of a dataset that is prepared as array_record.

    Our own datasets (`BUILDERS`) need no download and are prepared on first use.

    Args:
        name: TFDS name, with configuration and version if wanted (`name/config:1.0.0`).
        data_dir: directory of prepared datasets; empty for TFDS's default.

    Raises:
        ValueError: if the directory, the dataset or its files in this format are missing.
    """
    if data_dir and not Path(data_dir).is_dir():
        raise ValueError(f"data_dir {data_dir!r} is not a directory; create it or correct the path")
    if name in BUILDERS:
        builder = BUILDERS[name](data_dir=data_dir or None, file_format="array_record")
        if not _is_complete(builder.data_path):
            _prepare(name, builder.data_path)
            builder = BUILDERS[name](data_dir=data_dir or None, file_format="array_record")
        return builder
    builder = _tfds_builder(name, data_dir)
    command = _PREPARE.format(name=name, data_dir=data_dir or None)
    if not _is_complete(builder.data_path):
        raise ValueError(
            f"dataset {name!r} is not prepared under {str(builder.data_path)!r}; run `{command}` "
            "(some datasets need TensorFlow installed for this) or set data_dir to where it is"
        )
    file_format = builder.info.file_format
    if file_format is not tfds.core.FileFormat.ARRAY_RECORD:
        found = file_format.value if file_format else "unknown"
        raise ValueError(
            f"dataset {name!r} under {str(builder.data_path)!r} is in format {found}, which has "
            f"no random access; remove it or choose another data_dir and run `{command}`"
        )
    return builder


def _is_complete(path: os.PathLike) -> bool:
    # TFDS's is_prepared warns about a directory that is not there.
    return Path(path, "dataset_info.json").exists()


def _tfds_builder(name: str, data_dir: str) -> tfds.core.DatasetBuilder:
    try:
        return tfds.builder(name, data_dir=data_dir or None)
    except tfds.core.DatasetNotFoundError:
        pass
    except Exception as error:  # TFDS raises many types: bad names, configurations, versions
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"cannot open dataset {name!r}: {reason}") from error
    known = [*BUILDERS, *tfds.list_builders(with_community_datasets=False)]
    close = difflib.get_close_matches(name.partition("/")[0].partition(":")[0], known)
    hint = f"did you mean {', '.join(close)}?" if close else "use a name of the TFDS catalog"
    place = f" and none of that name is prepared under {data_dir!r}" if data_dir else ""
    raise ValueError(f"unknown dataset {name!r}{place}; {hint}")


def _prepare(name: str, target: os.PathLike) -> None:
    """Prepares one of our datasets, offline, at `target` (root/name/version).

    It is written next to the others under a temporary name and renamed: of several processes
    that start at once one rename wins, and nobody ever sees a half-written dataset.
    """
    target = Path(target)
    root = target.parents[1]
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=root) as scratch:
            builder = BUILDERS[name](data_dir=scratch, file_format="array_record")
            with _quiet():
                builder.download_and_prepare(
                    download_config=config, download_dir=str(Path(scratch, "downloads"))
                )
            target.parent.mkdir(exist_ok=True)
            try:
                Path(builder.data_path).rename(target)
            except OSError:
                if not _is_complete(target):
                    raise
    except OSError as error:
        raise ValueError(
            f"cannot prepare dataset {name!r} under {str(root)!r} ({error}); "
            "set data_dir to a writable directory"
        ) from error


@contextlib.contextmanager
def _quiet():
    """Keeps TFDS's notices and progress bars off the terminal."""
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.enable_progress_bar()
