"""Public weights by name: from the cache, or downloaded to it, whole and with their checksum."""

import hashlib
import http.client
import os
import re
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

from fixed_head_jax.pretrained import addresses
from fixed_head_jax.settings.lookup import closest
from fixed_head_jax.storage.files import replacing

_TIMEOUT = 30  # seconds without an answer
_CHUNK = 2**20  # bytes
_FAILURES = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError)


def is_public(source: str | Path) -> bool:
    """Tells whether a source names public weights, as `timm:NAME` or `torchvision:FILE`."""
    return str(source).partition(":")[0] in _PLACES


def fetch(source: str) -> Path:
    """Returns the file of public weights, which is downloaded if it is not in the cache.

    `timm:NAME` is model.safetensors of the repository timm/NAME in the Hugging Face hub, by its own
    client, whose cache and environment variables (HF_HOME, HF_ENDPOINT, HF_HUB_OFFLINE, ...) hold.
    `torchvision:FILE` is FILE.pth of torchvision, in the cache of `torch.hub`: TORCH_HOME, or
    ~/.cache/torch. What is in the cache is compared with its checksum, and downloaded again if it
    is damaged.

    Args:
        source: such a name, of any weights there: `addresses.KNOWN` has those that are known to
            fit.

    Raises:
        ValueError: if there are no such weights, they cannot be downloaded (it says where to put
            the file by hand), or what came is damaged.
    """
    place, _, name = source.partition(":")
    return _PLACES[place](source, name)


def _from_torchvision(source, name):
    name = name.removesuffix(".pth")
    digits = re.fullmatch(r"[\w.]+-([0-9a-f]{8,64})", name)
    if not digits:
        raise ValueError(
            f"{source!r} does not end in the digits of its checksum, as torchvision's files do"
            + _hint(source)
        )
    folder = torch_folder()
    file, url = folder / f"{name}.pth", f"{addresses.TORCHVISION}{name}.pth"
    if file.is_file() and _sha256(file).startswith(digits[1]):
        return file
    try:
        _download(url, file, digits[1])
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in (403, 404):
            raise ValueError(f"there is no {url}{_hint(source)}") from error
        raise _by_hand(source, url, error, f", or put it in {str(folder)!r}") from error
    except _FAILURES as error:
        reason = getattr(error, "reason", error)
        raise _by_hand(source, url, reason, f", or put it in {str(folder)!r}") from error
    except OSError as error:
        raise ValueError(f"{str(file)!r} cannot be written: {error.strerror}") from error
    return file


def torch_folder() -> Path:
    """Returns the cache of `torch.hub`, which files of torchvision are looked for in."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("TORCH_HOME") or Path(cache, "torch")
    return Path(home, "hub", "checkpoints").expanduser()


def _download(url, file, digits):
    """Writes what is at a URL, if it is whole and its SHA-256 begins with some digits."""
    checksum = hashlib.sha256()
    request = urllib.request.Request(url, headers={"User-Agent": "fixed_head_jax"})
    with replacing(file) as partial:
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer, open(partial, "wb") as to:
            size = int(answer.headers.get("Content-Length", 0))
            options = {"unit": "B", "unit_scale": True, "disable": None}  # no bar in a log file
            with tqdm(total=size or None, desc=file.name, **options) as bar:
                while chunk := answer.read(_CHUNK):
                    to.write(chunk)
                    checksum.update(chunk)
                    bar.update(len(chunk))
        if partial.stat().st_size < size:
            raise ConnectionError(f"broken off after {partial.stat().st_size:,} of {size:,} bytes")
        if not checksum.hexdigest().startswith(digits):
            raise ValueError(
                f"what {url} gives has SHA-256 {checksum.hexdigest()}, which does not begin with "
                f"{digits}, so it is not kept; repeat the command, or get the file by other means"
            )


def _from_hub(source, name):
    # Imported where it is used: it takes 0.3 s, and most runs start from something else.
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    repository = f"{addresses.HUB_OWNER}/{name}"
    cached = None
    try:
        cached = hf_hub_download(repository, addresses.HUB_FILE, local_files_only=True)
    except HFValidationError as error:
        raise ValueError(f"{source!r} is no name of weights{_hint(source)}") from error
    except LocalEntryNotFoundError:
        pass
    if cached and _fits_its_name(cached):
        return Path(cached)
    url = hf_hub_url(repository, addresses.HUB_FILE)
    damaged = f"; the copy in the cache, {cached!r}, is damaged" if cached else ""
    try:
        get_hf_file_metadata(url)  # fails at once, where the download tries for 20 seconds
        file = hf_hub_download(repository, addresses.HUB_FILE, force_download=bool(cached))
    except Exception as error:  # of the client's own kinds, which differ between its versions
        missing = isinstance(error, RepositoryNotFoundError | EntryNotFoundError)
        if missing and not isinstance(error, GatedRepoError | LocalEntryNotFoundError):
            raise ValueError(f"there is no {url}{_hint(source)}") from error
        raise _by_hand(source, url, error, damaged) from error
    if not _fits_its_name(file):
        raise ValueError(f"what {url} gives does not have its checksum; repeat the command")
    return Path(file)


def _fits_its_name(file):
    """Tells whether a file of the hub's cache is whole: a link to one called by its SHA-256.

    The client compares sizes only. Where it cannot make links, the checksum is not kept.
    """
    name = os.path.basename(os.readlink(file)) if os.path.islink(file) else ""
    return not re.fullmatch("[0-9a-f]{64}", name) or _sha256(file) == name


def _sha256(file):
    with open(file, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _by_hand(source, url, reason, more=""):
    """Returns the error of what cannot be downloaded here."""
    reason = " ".join(str(reason).split())[:200]
    return ValueError(
        f"{source} cannot be downloaded ({reason}): get {url} elsewhere and give the path of that "
        f"file in place of the name (init_from=FILE in a config){more}"
    )


def _hint(source):
    near = closest(source, addresses.KNOWN)
    return f"{near}; those that fit are listed by: python -m fixed_head_jax.pretrained list"


_PLACES = {"timm": _from_hub, "torchvision": _from_torchvision}
