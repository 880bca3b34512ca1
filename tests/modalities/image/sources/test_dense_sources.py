"""Boxes and masks from Pascal VOC's layout, COCO's json, a folder of masks, and the generator of shapes."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_lightning.core.errors import UserError
from ssl_lightning.modalities.image.annotations import read_mask
from ssl_lightning.modalities.image.sources.coco import Coco
from ssl_lightning.modalities.image.sources.folder import Folder
from ssl_lightning.modalities.image.sources.shapes import Shapes, places
from ssl_lightning.modalities.image.sources.shapes_render import CLASSES, render
from ssl_lightning.modalities.image.sources.voc import VOC, read_boxes

OBJECT = (
    "<object><name>{name}</name><difficult>{hard}</difficult><bndbox><xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax>"
    "<ymax>{3}</ymax></bndbox></object>"
)


def xml(*objects: tuple[str, tuple[float, ...]], width: int = 20, height: int = 10, hard: int = 0) -> str:
    inside = "".join(OBJECT.format(*box, name=name, hard=hard) for name, box in objects)
    return f"<annotation><size><width>{width}</width><height>{height}</height></size>{inside}</annotation>"


def picture(path: Path, width: int = 20, height: int = 10, color: int = 90) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (color, 0, 0)).save(path)


def mask(path: Path, values: np.ndarray, palette: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values.astype(np.uint8), "P" if palette else "L")
    if palette:
        image.putpalette([i % 256 for i in range(768)])
    image.save(path)


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    home = tmp_path / "VOCdevkit" / "VOC2007"
    for i in range(6):
        picture(home / "JPEGImages" / f"{i}.jpg")
        (home / "Annotations").mkdir(exist_ok=True)
        boxes = [("dog", (1.0, 1.0, 10.0, 10.0)), *([("cat", (5.0, 2.0, 20.0, 9.0))] if i % 2 else [])]
        (home / "Annotations" / f"{i}.xml").write_text(xml(*boxes, hard=int(i == 3)))
        values = np.zeros((10, 20))
        values[2:5, 3:9], values[0] = 12, 255
        mask(home / "SegmentationClass" / f"{i}.png", values)
    main, masked = {"train": "01", "val": "234", "trainval": "0123"}, {"train": "01", "val": "2"}
    for kind, lists in (("Main", main), ("Segmentation", masked)):
        (home / "ImageSets" / kind).mkdir(parents=True)
        for name, rows in lists.items():
            (home / "ImageSets" / kind / f"{name}.txt").write_text("".join(f"{row}\n" for row in rows))
    return tmp_path


def reading(data: Any, kind: str) -> Any:
    data.read_labels(kind)
    return data


# ---- Pascal VOC


def test_voc_gives_images_boxes_or_masks(voc: Path) -> None:
    data = VOC(voc / "VOCdevkit", image_size=16)
    assert (len(data.train_set), len(data.test_set), data.classes, data.has_labels) == (2, 3, [], False)
    boxes = reading(data, "boxes")
    assert boxes.classes == ["cat", "dog"]
    assert boxes.train_set.annotations.at(1).tolist() == [[0, 0, 10, 10, 1, 0], [4, 1, 20, 9, 0, 0]]
    assert boxes.test_set.annotations.at(1)[:, 5].tolist() == [1, 1]  # difficult
    assert [Path(path).name for path in boxes.test_set.paths] == ["2.jpg", "3.jpg", "4.jpg"]
    masks = reading(data, "masks")
    assert (len(masks.train_set), len(masks.test_set), masks.classes[12]) == (2, 1, "dog")
    found = masks.train_set.annotations.at(0)
    assert found.shape == (10, 20)
    assert (found[2:5, 3:9] == 12).all()
    assert (found[0] == 255).all()
    batch = next(iter(masks.eval_loader("train")))
    assert batch.views[0].shape == (2, 3, 16, 16)
    assert batch.labels.shape == (2, 16, 16)
    assert (batch.labels[:, 8:] == 255).all()  # below the image


def test_voc_lists_by_name_and_without_lists(voc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = VOC(voc / "VOCdevkit", train=["trainval"], test="val", image_size=16)
    assert len(data.train_set) == 4
    assert "2 images are trained and evaluated on" in capsys.readouterr().err
    shutil.rmtree(voc / "VOCdevkit/VOC2007/ImageSets")
    data = reading(VOC(voc, test_fraction=0.34, image_size=16), "boxes")
    assert (len(data.train_set), len(data.test_set)) == (4, 2)
    assert "no lists" in capsys.readouterr().err


def test_boxes_without_an_area_are_left_out_with_a_line(voc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = voc / "VOCdevkit/VOC2007/Annotations/0.xml"
    file.write_text(xml(("dog", (30, 3, 40, 9)), ("dog", (5, 5, 4, 9)), ("cat", (-3, 2, 90, 8))))
    data = reading(VOC(voc / "VOCdevkit", image_size=16), "boxes")
    assert data.train_set.annotations.at(0).tolist() == [[0, 1, 20, 8, 0, 0]]
    assert "2 boxes without an area inside the image left out (0.xml)" in capsys.readouterr().err


BAD: dict[str, tuple[str, str]] = {
    "no XML": ("<annotation", r"0\.xml is no XML"),
    "empty": ("", r"0\.xml is no XML"),
    "entities": ('<!DOCTYPE a [<!ENTITY b "c">]><annotation/>', "declares entities"),
    "no name": (xml(("", (1, 1, 2, 2))), "an object has no name"),
    "no numbers": (xml(("dog", (1, 1, 2, 2))).replace("<xmax>2</xmax>", "<xmax>two</xmax>"), "not four numbers"),
    "no box": ("<annotation><object><name>dog</name></object></annotation>", "not four numbers"),
    "not finite": (xml(("dog", (1, 1, float("inf"), 2))), "not four numbers"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_annotation_is_one_line_with_its_file(name: str, voc: Path) -> None:
    content, words = BAD[name]
    file = voc / "VOCdevkit/VOC2007/Annotations/0.xml"
    file.write_text(content)
    with pytest.raises(UserError, match=words) as caught:
        len(reading(VOC(voc / "VOCdevkit", image_size=16), "boxes").train_set)
    assert "\n" not in str(caught.value)
    assert "0.xml" in str(caught.value)


def test_entities_in_another_encoding_are_refused(voc: Path) -> None:
    file = voc / "VOCdevkit/VOC2007/Annotations/0.xml"
    file.write_bytes('<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>'.encode("utf-16"))
    with pytest.raises(UserError, match=r"0\.xml is no annotation: it declares entities"):
        read_boxes(file)


def test_what_is_absent_is_named(voc: Path) -> None:
    home = voc / "VOCdevkit/VOC2007"
    (home / "Annotations/1.xml").unlink()
    with pytest.raises(UserError, match=r"lacks the annotations of 1 image \(1\.xml\)"):
        len(reading(VOC(home, image_size=16), "boxes").train_set)
    (home / "SegmentationClass/1.png").unlink()
    with pytest.raises(UserError, match=r"lacks the masks of 1 listed image \(1\.png\)"):
        len(reading(VOC(home, image_size=16), "masks").train_set)
    (home / "JPEGImages/1.jpg").unlink()
    with pytest.raises(UserError, match=r"lacks 1 listed image \(1\)"):
        len(VOC(home, image_size=16).train_set)
    shutil.rmtree(home / "ImageSets/Segmentation")
    shutil.rmtree(home / "SegmentationClass")
    with pytest.raises(UserError, match="there is no folder SegmentationClass"):
        len(reading(VOC(home, image_size=16), "masks").train_set)
    with pytest.raises(UserError, match="no list trainvall"):
        len(VOC(home, train="trainvall", test="val", image_size=16).train_set)
    with pytest.raises(UserError, match="no folder JPEGImages"):
        len(VOC(voc / "VOCdevkit/VOC2007/ImageSets", image_size=16).train_set)


def test_a_size_of_zero_in_the_file_limits_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(xml(("dog", (1, 1, 15, 9)), width=0, height=0))
    rows, lost = read_boxes(tmp_path / "a.xml")
    assert lost == 0
    assert rows[0][1].tolist() == [0, 0, 15, 9, 0, 0]


def test_a_broken_image_is_skipped_and_counted(voc: Path) -> None:
    (voc / "VOCdevkit/VOC2007/JPEGImages/0.jpg").write_bytes(b"no image")
    data = reading(VOC(voc / "VOCdevkit", image_size=16), "boxes")
    batch = next(iter(data.eval_loader("train")))
    assert batch.indices.tolist() == [1, 1]
    assert data.train_set.broken.rows == {0}


# ---- COCO


def coco(folder: Path, **changed: Any) -> Path:
    for i in range(4):
        picture(folder / "val" / f"{i}.jpg")
    images: list[Any] = [{"id": 10 + i, "file_name": f"{i}.jpg", "width": 20, "height": 10} for i in range(4)]
    square = [2.0, 1.0, 8.0, 1.0, 8.0, 7.0, 2.0, 7.0]
    annotations: list[Any] = [
        {"id": 1, "image_id": 10, "category_id": 7, "bbox": [2, 1, 6, 6], "segmentation": [square], "area": 36},
        {"id": 2, "image_id": 10, "category_id": 3, "bbox": [4, 3, 2, 2], "area": 4,
         "segmentation": [[4.0, 3.0, 6.0, 3.0, 6.0, 5.0, 4.0, 5.0]]},
        {"id": 3, "image_id": 11, "category_id": 3, "bbox": [0, 0, 20, 10], "iscrowd": 1, "area": 40,
         "segmentation": {"size": [10, 20], "counts": [160, 40]}},
    ]  # fmt: skip
    categories: list[Any] = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]
    found = {"images": images, "annotations": annotations, "categories": categories, **changed}
    file = folder / "instances.json"
    file.write_text(json.dumps(found))
    return file


def test_coco_gives_boxes_and_masks(tmp_path: Path) -> None:
    file = coco(tmp_path)
    data = Coco(tmp_path, file, file, image_size=20)
    assert len(data.train_set) == 4
    boxes = reading(data, "boxes")
    assert boxes.classes == ["cat", "dog"]
    assert boxes.train_set.annotations.at(0).tolist() == [[2, 1, 8, 7, 1, 0], [4, 3, 6, 5, 0, 0]]
    assert boxes.train_set.annotations.at(1).tolist() == [[0, 0, 20, 10, 0, 1]]
    masks = reading(data, "masks")
    assert masks.classes == ["background", "cat", "dog"]
    wanted = torch.zeros(10, 20, dtype=torch.uint8)
    wanted[1:7, 2:8], wanted[3:5, 4:6] = 2, 1  # the smaller one lies over the larger
    assert torch.equal(masks.train_set.annotations.at(0), wanted)
    crowd = masks.train_set.annotations.at(1)
    assert set(crowd.unique().tolist()) == {0, 255}
    assert int((crowd == 255).sum()) == 40
    assert int((crowd[:, 16:] == 255).sum()) == 40  # counted down the columns


def test_coco_holds_some_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = Coco(tmp_path, coco(tmp_path), test_fraction=0.25, image_size=16)
    assert (len(data.train_set), len(data.test_set)) == (3, 1)
    assert "held out" in capsys.readouterr().err


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no list": ({"images": 3}, "is not COCO's"),
    "none": ({"images": []}, "lists no image"),
    "leads out": ({"images": [{"id": 10, "file_name": "../x.jpg"}], "annotations": []}, "without a file name under"),
    "absent": ({"images": [{"id": 10, "file_name": "x.jpg"}], "annotations": []}, r"holds no x\.jpg"),
    "image": ({"annotations": [{"id": 9, "image_id": 1, "category_id": 3}]}, "annotation 9 is of an image"),
    "an id that is a list": ({"annotations": [{"id": 9, "image_id": [1], "category_id": 3}]}, "annotation 9 is of"),
    "a category that is a list": (
        {"annotations": [{"id": 9, "image_id": 10, "category_id": {}}]},
        "annotation 9 is of",
    ),
    "box": ({"annotations": [{"id": 9, "image_id": 10, "category_id": 3, "bbox": [1, 2, "x", 3]}]}, "no box of four"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_bad_json_is_one_line(name: str, tmp_path: Path) -> None:
    changed, words = WRONG[name]
    with pytest.raises(UserError, match=words) as caught:
        len(reading(Coco(tmp_path, coco(tmp_path, **changed), image_size=16), "boxes").train_set)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "outline",
    [
        {"size": [10, 2_000_000_000], "counts": [0, 20_000_000_000]},
        {"size": [20, 10], "counts": [160, 40]},
        {"size": [10, 20], "counts": [160, 5_000_000_000]},
        {"size": [10, 20], "counts": [-1, 201]},
        {"size": [10, 20], "counts": "no code"},
        {"counts": [160, 40]},
    ],
)
def test_an_outline_that_does_not_fit_is_one_line(outline: dict[str, Any], tmp_path: Path) -> None:
    one = {"id": 1, "image_id": 10, "category_id": 7, "segmentation": outline}
    file = coco(tmp_path, annotations=[one])
    masks = reading(Coco(tmp_path, file, file, image_size=16), "masks")
    with pytest.raises(UserError, match=r"instances\.json: an outline cannot be drawn on 20 x 10 pixels"):
        masks.train_set.annotations.at(0)


def test_a_mask_without_end_is_refused_before_it_is_made(tmp_path: Path) -> None:
    file = coco(
        tmp_path, images=[{"id": 10 + i, "file_name": f"{i}.jpg", "width": 10**9, "height": 10} for i in range(4)]
    )
    with pytest.raises(UserError, match=r"0\.jpg is said to be 1e\+09 x 10 px"):
        len(reading(Coco(tmp_path, file, file, image_size=16), "masks").train_set)


def test_text_that_is_no_json(tmp_path: Path) -> None:
    file = coco(tmp_path)
    file.write_text("[1, 2")
    with pytest.raises(UserError, match="is no JSON"):
        len(Coco(tmp_path, file, image_size=16).train_set)


# ---- a folder of masks


def folders(tmp_path: Path) -> tuple[Path, Path]:
    for i in range(8):
        picture(tmp_path / "images" / ("test" if i < 3 else "train") / f"{i}.jpg")
        values = np.zeros((10, 20))
        values[:, :5] = i % 3
        mask(tmp_path / "masks" / ("test" if i < 3 else "train") / f"{i}.png", values, palette=bool(i % 2))
    return tmp_path / "images", tmp_path / "masks"


def test_a_folder_of_images_with_a_folder_of_masks(tmp_path: Path) -> None:
    images, masks = folders(tmp_path)
    data = reading(Folder(images, masks=masks, image_size=16), "masks")
    assert (len(data.train_set), len(data.test_set), data.classes) == (5, 3, ["0", "1", "2"])
    for items in (data.train_set, data.test_set):
        for row, path in enumerate(items.paths):
            assert (items.annotations.at(row)[:, :5] == int(Path(path).stem) % 3).all()


def test_masks_that_do_not_fit_are_named(tmp_path: Path) -> None:
    images, masks = folders(tmp_path)
    with pytest.raises(UserError, match=r"lies inside data\.root"):
        Folder(tmp_path, masks=masks, image_size=16)
    with pytest.raises(UserError, match=r"read from data\.masks=FOLDER"):
        len(reading(Folder(images, image_size=16), "masks").train_set)
    picture(masks / "train" / "4.png")
    with pytest.raises(UserError, match=r"4\.png is a picture of colours"):
        len(reading(Folder(images, masks=masks, image_size=16), "masks").train_set)
    (masks / "train" / "4.png").unlink()
    with pytest.raises(UserError, match=r"lacks the masks of 1 image \(train/4\)"):
        len(reading(Folder(images, masks=masks, image_size=16), "masks").train_set)


def test_a_mask_of_16_bits_with_numbers_beyond_bytes(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 300, np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match="has values from 300 to 300"):
        read_mask(str(tmp_path / "a.png"))


# ---- shapes


def test_instances_of_shapes_agree_with_the_pixels() -> None:
    """What is said to be a figure is not of the ground's colour, and the first is the mask that was always told."""
    rows = torch.arange(60)
    drawn = render(rows, 48, seed=1, split="test")
    assert torch.equal(drawn.instances[:, 0], drawn.masks)
    assert drawn.instances.sum(1).max() == 1  # of two figures one lies in front
    assert (drawn.instances.flatten(2).sum(2) <= drawn.whole).all()
    pixels = drawn.images.float() / 255
    for i in range(60):
        ground = drawn.factors["ground_colour"][i]
        for k in range(3):
            seen = drawn.instances[i, k]
            color = drawn.factors["figure_colour"][i] if k == 0 else drawn.factors["companion_colour"][i, 2 - k]
            if int(seen.sum()) >= 20:
                mean = pixels[i][seen].mean(0)
                assert (mean - color).abs().max() < (mean - ground).abs().max(), (i, k)
        rest = ~drawn.instances[i].any(0)
        assert (pixels[i][rest].mean(0) - ground).abs().max() < 0.15


def test_places_of_shapes() -> None:
    boxes, masks = places(20, 32, 0, "train")
    drawn = render(torch.arange(20), 32, 0, "train")
    assert torch.equal(boxes[:, 0, :4], drawn.boxes)
    assert (boxes[:, :, 4] == drawn.labels[:, None]).all()
    assert torch.equal(masks > 0, drawn.instances.any(1))
    assert (masks.flatten(1).amax(1) == 1 + drawn.labels).all()
    for i in range(20):
        for k in range(3):
            lines, columns = drawn.instances[i, k].any(1).nonzero(), drawn.instances[i, k].any(0).nonzero()
            if len(lines):
                wanted = [columns.min(), lines.min(), columns.max() + 1, lines.max() + 1]
                assert boxes[i, k, :4].tolist() == wanted
            shown = drawn.instances[i, k].sum() / drawn.whole[i, k]
            assert bool(boxes[i, k, 5]) == bool(shown < 0.25)


@pytest.mark.parametrize("kind", ["boxes", "masks"])
def test_shapes_with_places_have_the_same_images(kind: str) -> None:
    make: Callable[[], Shapes] = lambda: Shapes(20, 10, image_size=32)  # noqa: E731
    plain, dense = make(), reading(make(), kind)
    assert torch.equal(plain.train_set.images, dense.train_set.images.images)
    assert dense.classes == (CLASSES if kind == "boxes" else ["background", *CLASSES])
    assert plain.classes == CLASSES
