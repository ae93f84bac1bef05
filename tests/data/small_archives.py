"""What tests of definitions of datasets share: archives in the official layout, small."""

import io
import tarfile
from pathlib import Path

import pytest

from fixed_head_jax.data.builders import DEFINITIONS


def names_as_content(names) -> dict[str, bytes]:
    """Returns files that hold their own names: definitions never look into an image."""
    return {name: name.encode() for name in names}


def tar(files: dict[str, bytes], mode: str = "w:") -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode=mode) as archive:
        for name, content in files.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            archive.addfile(header, io.BytesIO(content))
    return target.getvalue()


def write(folder: Path, archive: str, files: dict[str, bytes]) -> None:
    """Writes an archive, or, where it has no suffix, the files themselves."""
    if "." in archive:
        (folder / archive).write_bytes(tar(files, "w:" if archive.endswith(".tar") else "w:gz"))
        return
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def labels(definition, split: str) -> dict[str, int]:
    """Returns name -> label of a split, after checking that every image is what it is called."""
    examples = list(definition.splits[split]())
    assert examples == list(definition.splits[split]())
    assert all(Path(e.name).name == Path(e.encoded.decode()).name for e in examples)
    found = {example.name: example.label for example in examples}
    assert len(found) == len(examples)
    return found


def refuses(name: str, folder: Path | None, message: str) -> str:
    with pytest.raises(ValueError, match=message) as caught:
        definition = DEFINITIONS[name](folder)
        for split in definition.splits:
            list(definition.splits[split]())
    assert "\n" not in str(caught.value)
    return str(caught.value)
