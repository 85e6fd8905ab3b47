"""`infopro predict`: from a finished run and photos to classes, masks and overlays."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from infopro.data._messages import listed, quoted
from infopro.errors import BadConfiguration, BadData
from infopro.memory.tables import render
from infopro.predict_options import inference_of, refuse_inference
from infopro.prediction import (
    ClassPrediction,
    Inference,
    SegmentationPrediction,
    overlay,
    predict_classes,
    predict_segmentation,
    with_legend,
    write_mask,
)
from infopro.prediction.new_files import write_new, write_picture
from infopro.prediction.photos import find_photos, grey, output_names, read_cropped, read_photo, resized
from infopro.recipes import choose_device
from infopro.trained_network import TrainedNetwork, load_network
from infopro.training.evaluation import autocast
from infopro.writable import require_writable

__all__ = ["run"]

Photo = NDArray[np.uint8]


def run(options: Any, console: Console) -> None:
    """Predict for every photo that can be read; nothing is begun unless the results can be written.

    Raises:
        InfoProError: no such run or photo, results that exist already, options that nothing reads; and in the
            end, when all others are predicted, the photos that could not be read.
    """
    photos = find_photos(map(Path, options.images))
    if options.output is not None:
        place = Path(options.output)
        require_writable(place if place.is_dir() else place.parent)
    network = load_network(Path(options.run), device=choose_device(options.device))
    with autocast(network.device, network.precision):
        broken = (_segment if network.task.dense else _classify)(network, photos, options, console)
    if broken:
        rest = "" if len(broken) == len(photos) else "; the others are predicted"
        raise BadData(
            f"{len(broken)} of {len(photos)} images cannot be read",
            got=listed([quoted(path) for path in broken]),
            remedy=f"repair them or leave them out{rest}",
        )


@dataclass
class _Reading:
    """Photos in batches, with a bar; those that cannot be read are told and left out."""

    photos: Sequence[Path]
    read: Callable[[Path], Photo]
    batch_size: int
    console: Console
    broken: dict[Path, str] = field(default_factory=dict)

    def batches(self) -> Iterator[list[tuple[int, Photo]]]:
        """Each photo with its place among all."""
        with _bar(self.console) as bar:
            task = bar.add_task("predicting", total=len(self.photos))
            for first in range(0, len(self.photos), self.batch_size):
                chosen = range(first, min(first + self.batch_size, len(self.photos)))
                found = [(place, photo) for place in chosen if (photo := self._read(place)) is not None]
                if found:
                    yield found
                bar.update(task, completed=chosen.stop)

    def _read(self, place: int) -> Photo | None:
        path = self.photos[place]
        try:
            return self.read(path)
        except BadData as error:
            self.broken[path] = str(error)
            _print(self.console, f"left out: {error}")
            return None


def _segment(network: TrainedNetwork, photos: list[Path], options: Any, console: Console) -> dict[Path, str]:
    inference = _inference(network, options)
    names = output_names(photos)
    folder = _new_files(options.output, names)
    rows = []
    reading = _Reading(photos, _reader(network), inference.batch_size, console)
    for batch in reading.batches():
        found = predict_segmentation(
            network.model, [photo for _, photo in batch], task=network.task, inference=inference
        )
        for (place, photo), prediction in zip(batch, found, strict=True):
            _write_pictures(folder, names[place], photo, prediction, network)
            largest = np.argsort(prediction.shares, kind="stable")[::-1][: options.top].tolist()
            shares = [(network.class_names[c], prediction.shares[c]) for c in largest if prediction.shares[c]]
            rows.append([str(photos[place]), names[place], *(_percent(*share) for share in shares)])
    if rows:
        _say(console, f"{network.title}: share of the area", ["image", "name"], rows)
        wrote = f"{folder / '*'}_mask.png (class numbers) and {folder / '*'}_overlay.png"
        _print(console, f"wrote {2 * len(rows)} files: {wrote}")
    return reading.broken


def _inference(network: TrainedNetwork, options: Any) -> Inference:
    found: Inference = inference_of(
        options,
        needs=network.needs,
        built_for=network.image_shape[1:],
        usual_window=network.crop,
        size=network.size,
    )
    return found


def _new_files(output: str | None, names: Sequence[str]) -> Path:
    """The folder for the pictures.

    Raises:
        BadConfiguration: no folder is named, it cannot be one, or a picture of it would be overwritten.
    """
    if output is None:
        raise BadConfiguration("segmentation writes pictures", remedy="name a folder for them: -o FOLDER")
    folder = Path(output)
    if folder.exists() and not folder.is_dir():
        raise BadConfiguration("a file stands where the folder would be", got=quoted(folder))
    files = [folder / f"{name}_{kind}.png" for name in names for kind in ("mask", "overlay")]
    _refuse_existing([file for file in files if file.exists()])
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _write_pictures(
    folder: Path, name: str, photo: Photo, prediction: SegmentationPrediction, network: TrainedNetwork
) -> None:
    from PIL import Image

    write_mask(folder / f"{name}_mask.png", prediction.mask, network.colours)
    shown = np.flatnonzero(prediction.shares).tolist()
    legend = [(network.class_names[c], network.colours[c]) for c in shown]
    picture = with_legend(overlay(photo, prediction.mask, network.colours), legend)
    write_picture(folder / f"{name}_overlay.png", Image.fromarray(picture))


def _classify(network: TrainedNetwork, photos: list[Path], options: Any, console: Console) -> dict[Path, str]:
    refuse_inference(options, because="a run that predicts one class an image")
    file = None if options.output is None else Path(options.output)
    if file is not None:
        file = file if file.suffix == ".json" else Path(f"{file}.json")
        _refuse_existing([file] if file.exists() else [])
    rows, written = [], []
    reading = _Reading(photos, _reader(network), options.batch_size, console)
    for batch in reading.batches():
        found = predict_classes(
            network.model, [photo for _, photo in batch], task=network.task, top=options.top
        )
        for (place, _), prediction in zip(batch, found, strict=True):
            classes = _plain_classes(prediction, network)
            rows.append([str(photos[place]), *(_percent(c["name"], c["probability"]) for c in classes)])
            written.append({"image": str(photos[place]), "classes": classes})
    if rows:
        _say(console, f"{network.title}: most probable classes", ["image"], rows)
    if file is not None and rows:
        content = {**network.origin, "images": written, "broken": list(map(str, reading.broken))}
        file.parent.mkdir(parents=True, exist_ok=True)
        write_new(file, f"{json.dumps(content, indent=1)}\n".encode())
        _print(console, f"wrote {file}")
    return reading.broken


def _plain_classes(prediction: ClassPrediction, network: TrainedNetwork) -> list[dict[str, Any]]:
    return [
        {"name": network.class_names[number], "number": number, "probability": probability}
        for number, probability in zip(prediction.classes, prediction.probabilities, strict=True)
    ]


def _reader(network: TrainedNetwork) -> Callable[[Path], Photo]:
    """Photos as the run's test images were prepared."""
    channels, rows, columns = network.image_shape
    if channels not in (1, 3):
        raise BadConfiguration(
            "photos have three channels, or one in grey", got=f"a network of images with {channels}"
        )

    def read(path: Path) -> Photo:
        if network.task.dense:
            photo = read_photo(path)
        elif network.crops:
            photo = read_cropped(path, rows)
        else:
            photo = resized(read_photo(path), (rows, columns))
        return grey(photo) if channels == 1 else photo

    return read


def _refuse_existing(files: Sequence[Path]) -> None:
    if files:
        raise BadConfiguration(
            "results exist, and nothing is overwritten",
            got=listed([quoted(file) for file in files]),
            remedy="pass another -o, or remove them",
        )


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("images, left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def _percent(name: str, share: float) -> str:
    return f"{name} {'<0.1' if 0 < share < 0.0005 else f'{100 * share:.1f}'} %"


def _say(console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    longest = max(map(len, rows))
    numbers = [str(rank) for rank in range(1, longest - len(columns) + 1)]
    padded = [[escape(cell) for cell in [*row, *[""] * (longest - len(row))]] for row in rows]
    _print(console, render(escape(title), [*columns, *numbers], padded))


def _print(console: Console, text: str) -> None:
    """As it is: a file's name may hold brackets."""
    console.print(text, highlight=False, soft_wrap=True, markup=False)
