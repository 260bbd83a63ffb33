"""Labels in documents: what stands beside the images in CSV, JSON lines, JSON and text files."""

import json

import pytest

from ssl_core.config import Reading
from ssl_core.data import labelling
from ssl_core.data.items import PackError
from ssl_core.data.labelling import assign


def read(names, documents, **fields):
    data = {name: text.encode() if isinstance(text, str) else text for name, text in documents.items()}
    return assign(names, [None] * len(names), [None] * len(names), data, Reading(**fields))


def labels(found):
    return [pair and pair[1] for pair in found.assigned]


def codes(found):
    return sorted({finding.code for finding in found.findings})


FLAT = [f"images/{number}.png" for number in range(4)]
WANTED = ["a", "b", "a", "b"]


def csv(header="file,label", *, prefix="", suffix=".png", separator=","):
    lines = [header.replace(",", separator)] if header else []
    return "\n".join([*lines, *(f"{prefix}{n}{suffix}{separator}{WANTED[n]}" for n in range(4))]) + "\n"


OBJECTS = [{"file_name": f"{n}.png", "label": WANTED[n]} for n in range(4)]
COCO = {
    "images": [{"id": 10 + n, "file_name": f"{n}.png"} for n in range(4)],
    "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    "annotations": [{"image_id": 10 + n, "category_id": 1 + n % 2, "bbox": [0, 0, n, n]} for n in range(4)],
}


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ("labels.csv", csv()),
        ("labels.csv", csv(separator=";")),
        ("labels.tsv", csv(separator="\t")),
        ("labels.csv", "\ufeff" + csv()),
        ("labels.csv", csv().replace("\n", "\r\n").encode("utf-16")),
        ("labels.csv", csv(header="")),
        ("labels.csv", csv("id,breed", suffix="")),
        ("train.csv", csv("image_id,whatever", prefix="images/")),
        ("labels.csv", csv(prefix="/home/me/set/images/")),
        ("labels.csv", csv(prefix="C:\\set\\images\\")),
        ("images/metadata.csv", csv("file_name,label")),
        (
            "metadata.jsonl",
            "\n".join(json.dumps(each | {"file_name": f"images/{each['file_name']}"}) for each in OBJECTS),
        ),
        ("images/metadata.jsonl", "\n".join(map(json.dumps, OBJECTS))),
        ("labels.json", json.dumps(OBJECTS)),
        ("labels.json", json.dumps({"data": OBJECTS})),
        ("labels.json", json.dumps({each["file_name"]: each["label"] for each in OBJECTS})),
        ("annotations/instances.json", json.dumps(COCO)),
        ("annotations.txt", csv(header="", separator="\t")),
        ("annotations.txt", "".join(f"{n}.png {WANTED[n]} 0 0 9 9\n" for n in range(4))),
        ("labels.csv", "image,a,b\n" + "".join(f"{n},{1.0 - n % 2},{float(n % 2)}\n" for n in range(4))),
        ("labels.csv", "label,file\n" + "".join(f"{WANTED[n]},{n}.png\n" for n in range(4))),
    ],
)
def test_labels_are_read(document, text):
    found = read(FLAT, {document: text})
    assert labels(found) == WANTED
    assert (found.report["labels"], found.report["tables"], codes(found)) == ("tables", [document], [])


def test_numbers_of_files_are_not_taken_for_labels():
    """The stems of the files and the labels are the same numbers."""
    text = "label,file\n" + "".join(f"{n % 2},{n}.png\n" for n in range(4))
    assert labels(read(FLAT, {"labels.csv": text})) == ["0", "1", "0", "1"]


def test_unread_columns_and_documents_are_named():
    text = "file,label,age\n" + "".join(f"{n}.png,{WANTED[n]},{n}\n" for n in range(4))
    found = read(FLAT, {"labels.csv": text, "other.json": '{"a": {"b": 1}}', "notes.txt": "hello world, all is well"})
    assert labels(found) == WANTED
    assert [(each.code, each.example) for each in found.findings] == [
        ("unread_columns", "labels.csv: age"),
        ("unread_document", "other.json"),
    ]


def test_columns_without_a_known_name_are_chosen_by_the_upload():
    text = "file,age,stage\n" + "".join(f"{n}.png,{n},{WANTED[n]}\n" for n in range(4))
    found = read(FLAT, {"labels.csv": text})
    assert (labels(found), codes(found)) == ([None] * 4, ["unread_document"])
    assert labels(read(FLAT, {"labels.csv": text}, label_column="Stage")) == WANTED
    with pytest.raises(PackError, match="there are: age, file, stage"):
        read(FLAT, {"labels.csv": text}, label_column="phase")
    with pytest.raises(PackError, match="phase"):
        read(FLAT, {}, label_column="phase")


def test_folders_go_before_tables_but_not_before_metadata():
    names = [f"{'xy'[n % 2]}/{n}.png" for n in range(4)]
    found = read(names, {"labels.csv": csv()})
    assert (labels(found), codes(found)) == (["x", "y", "x", "y"], ["labels_not_used"])
    assert labels(read(names, {"labels.csv": csv()}, label_column="label")) == WANTED
    whole = "file_name,label\n" + "".join(f"{name},{WANTED[n]}\n" for n, name in enumerate(names))
    assert labels(read(names, {"metadata.csv": whole})) == WANTED


def test_tiny_imagenet():
    names = [f"tiny/train/{c}/images/{c}_{i}.png" for c in ("n01", "n02") for i in range(3)]
    names += [f"tiny/val/images/val_{i}.png" for i in range(4)] + ["tiny/test/images/test_0.png"]
    text = "".join(f"val_{i}.png\tn0{1 + i % 2}\t0\t0\t9\t9\n" for i in range(4))
    found = read(names, {"tiny/val/val_annotations.txt": text, "tiny/wnids.txt": "n01\nn02\n"})
    assert found.assigned[6:] == [("val", "n01"), ("val", "n02"), ("val", "n01"), ("val", "n02"), ("test", None)]
    assert codes(found) == []


def test_numbers_that_are_no_names_are_not_taken_for_images():
    boxes = {f"labels/{n}.txt": f"{n} 0.5 0.5 0.1 0.1\n" for n in range(4)}  # as YOLO writes, beside each image
    found = read(FLAT, boxes)
    assert (labels(found), codes(found), len(found.findings)) == ([None] * 4, ["unread_document"], 4)
    for text in ('{"version": 1}', '{"images": 2, "classes": 3}', '[{"year": 1, "month": 2}]'):
        assert labels(read(FLAT, {"meta.json": text})) == [None] * 4
    ages = "age,weight\n" + "".join(f"{n + 40},{n}\n" for n in range(100))
    assert labels(read(FLAT, {"other.csv": ages})) == [None] * 4


def test_a_path_that_contradicts_an_images_folder_is_not_its():
    found = read(
        ["dogs/0.png", "dogs/1.png"], {"labels.csv": "file,label\ncats/0.png,cat\ndogs/1.png,dog\n"}, layout="flat"
    )
    assert (labels(found), codes(found)) == ([None, "dog"], ["rows_without_image"])


def test_tables_of_no_labels_give_none():
    submission = {"sample_submission.csv": csv("id,label", suffix=""), "folds.csv": csv("file,fold")}
    found = read(FLAT, submission)
    assert (labels(found), codes(found)) == ([None] * 4, ["unread_document"])
    assert labels(read(FLAT, {"labels.csv": csv().replace(",a", ",none")})) == ["none", "b", "none", "b"]
    with pytest.raises(PackError, match="none of train, val and test"):
        read(FLAT, {"labels.csv": csv("file,phase")}, split_column="phase")
    assert labels(read(FLAT, {"labels.csv": csv().replace("a\n", "a,\n")})) == WANTED  # a comma too many


def test_objects_with_names_of_their_own_are_no_table():
    objects = [{"file_name": f"{n}.png", f"key{n}": n} for n in range(3000)]
    assert labels(read(FLAT, {"labels.json": json.dumps(objects)})) == [None] * 4


def test_splits_of_a_column_and_of_the_names_of_tables():
    text = "file,label,split\n" + "".join(f"{n}.png,{WANTED[n]},{'test' if n == 3 else 'Training'}\n" for n in range(4))
    assert [pair[0] for pair in read(FLAT, {"labels.csv": text}).assigned] == ["train", "train", "train", "test"]
    tables = {"train.csv": "file,label\n0.png,a\n1.png,b\n", "test.csv": "file,label\n2.png,a\n3.png,b\n"}
    found = read(FLAT, tables)
    assert found.assigned == [("train", "a"), ("train", "b"), ("test", "a"), ("test", "b")]
    assert found.report["tables"] == ["test.csv", "train.csv"]


def test_roboflow_documents_stand_in_the_folders_of_splits():
    names = [f"{split}/{n}.png" for split in ("train", "valid") for n in range(4)]
    found = read(names, {f"{split}/_annotations.coco.json": json.dumps(COCO) for split in ("train", "valid")})
    assert labels(found) == WANTED * 2
    assert [pair[0] for pair in found.assigned] == ["train"] * 4 + ["val"] * 4


def test_several_labels_and_missing_images_are_counted():
    text = csv() + "0.png,b\n9.png,a\n8.png,a\n"
    found = read(FLAT, {"labels.csv": text})
    assert labels(found) == [None, "b", "a", "b"]
    assert sorted((each.code, each.example) for each in found.findings) == [
        ("rows_without_image", "labels.csv: 8.png"),
        ("rows_without_image", "labels.csv: 9.png"),
        ("several_labels", "images/0.png"),
    ]


def test_prose_beside_millions_of_images_makes_no_index_of_them(monkeypatch):
    monkeypatch.setattr(labelling, "_NameIndex", None)
    found = read(FLAT, {"README.txt": "Photographs of the year.\nThey were taken by many.\n", "LICENSE.txt": "MIT\n"})
    assert (labels(found), found.findings) == ([None] * 4, [])


@pytest.mark.parametrize("value", ["", "NaN"])
def test_an_empty_value_is_no_label(value):
    text = csv().replace("3.png,b", f"3.png,{value}")
    assert labels(read(FLAT, {"labels.csv": text})) == ["a", "b", "a", None]


HOSTILE = {
    "deep.json": "[" * 100_000,
    "number.json": "9" * 10_000,
    "list.json": "[1, 2, {}]",
    "coco.json": '{"images": 1, "annotations": [{}], "categories": {"a": 1}}',
    "nul.csv": "file,label\n\x000.png,a\n",
    "ragged.csv": "file,label\n0.png,a\n1.png\n\n2.png,a,b,c\n",
    "quotes.csv": 'file,label\n"0.png,a\n1.png,b\n',
    "empty.csv": "",
    "bytes.csv": bytes(range(256)) * 4,
    "one_hot.csv": "image,a,b\n" + "0,1,0\n" * 1500 + "1,x,\n2,1,1\n",
    "nested.jsonl": '{"file_name": {"a": 1}, "label": [[1]]}\n{"file_name": ["0.png"], "label": {}}\n',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_damaged_document_is_at_worst_unread(name):
    found = read(FLAT, {name: HOSTILE[name]})
    assert len(found.assigned) == 4


FOODS = [f"food/images/{name}/{n}.jpg" for name in ("apple_pie", "sushi") for n in range(3)]
FOOD_SPLITS = ["train", "train", "test"] * 2


def splits(found):
    return [pair and pair[0] for pair in found.assigned]


def food_list(split, *, suffix="", separator="\n"):
    chosen = (name for name, each in zip(FOODS, FOOD_SPLITS, strict=True) if each == split)
    return separator.join(name.removeprefix("food/images/").removesuffix(".jpg") + suffix for name in chosen)


def food_json(split):
    return json.dumps(
        {name: [each for each in food_list(split).split() if name in each] for name in ("apple_pie", "sushi")}
    )


@pytest.mark.parametrize(
    "documents",
    [
        {"food/meta/train.txt": food_list("train"), "food/meta/test.txt": food_list("test")},
        {"meta/train.txt": food_list("train", suffix=".jpg"), "meta/test.txt": food_list("test", suffix=".jpg")},
        {"train.csv": "file\n" + food_list("train"), "test.csv": "file\n" + food_list("test")},
        {"food/meta/train.json": food_json("train"), "food/meta/test.json": food_json("test")},
        {"splits.json": json.dumps({split: food_list(split).split() for split in ("train", "test")})},
        {"testing_list.txt": food_list("test")},
        {"meta/trainval.txt": food_list("train"), "meta/test.txt": food_list("test")},
        {
            **{"sets/train.txt": food_list("train"), "sets/test.txt": food_list("test")},
            "sets/trainval.txt": food_list("train") + "\n" + food_list("test"),
        },
    ],
)
def test_lists_of_images_give_splits(documents):
    others = {"food/meta/classes.txt": "apple_pie\nsushi\n", "food/README.txt": "Foods, in\ntwo classes.\n"}
    found = read(FOODS, documents | others)
    assert (splits(found), codes(found)) == (FOOD_SPLITS, [])
    assert labels(found) == ["apple_pie"] * 3 + ["sushi"] * 3


def test_lists_that_contradict_each_other_give_no_splits():
    folds = {"labels/train1.txt": food_list("train"), "labels/test1.txt": food_list("test")}
    folds |= {"labels/train2.txt": food_list("test"), "labels/test2.txt": food_list("train")}
    found = read(FOODS, folds)
    assert (splits(found), codes(found), len(found.findings)) == (["train"] * 6, ["several_splits"], 6)
    assert splits(read(FOODS, {"test.txt": food_list("train") + "\n" + food_list("test")})) == ["train"] * 6


def test_lines_of_words_give_labels_without_suffixes_of_files():
    names = [f"images/{breed}_{n}.jpg" for breed in ("pug", "Bombay") for n in range(10, 12)]
    lists = {  # as those of Oxford-IIIT Pets
        "annotations/list.txt": "#Image CLASS-ID SPECIES BREED ID\n#some words\n"
        "pug_10 1 2 1\npug_11 1 2 1\nBombay_10 2 1 1\nBombay_11 2 1 1\n",
        "annotations/trainval.txt": "pug_10 1 2 1\nBombay_10 2 1 1\nBombay_11 2 1 1\n",
        "annotations/test.txt": "pug_11 1 2 1\n",
    }
    found = read(names, lists)
    assert found.assigned == [("train", "1"), ("test", "1"), ("train", "2"), ("train", "2")]
    makers = {"images_maker_train.txt": "10 Boeing 707\n11 Airbus A300 B\n12 Fokker\n"}
    planes = [f"data/images/{n}.jpg" for n in range(10, 13)]
    assert labels(read(planes, makers)) == ["Boeing 707", "Airbus A300 B", "Fokker"]


def test_lines_of_numbers_that_describe_one_image_are_no_list():
    boxes = "0 0.5 0.5 0.1 0.1\n1 0.2 0.2 0.1 0.1\n2 0.7 0.7 0.1 0.1\n"
    assert labels(read(FLAT, {"labels/3.txt": boxes})) == [None] * 4


def test_a_list_below_a_folder_of_both_splits_has_the_split_of_its_own_name():
    names = [f"VOCtrainval_2012/JPEGImages/2007_{n}.jpg" for n in range(4)]
    lists = {
        f"VOCtrainval_2012/ImageSets/{name}.txt": f"2007_{n}\n2007_{n + 1}\n" for name, n in (("train", 0), ("val", 2))
    }
    assert splits(read(names, lists)) == ["train", "train", "val", "val"]


def test_an_image_with_several_labels_gets_none_however_many_documents_have_it():
    sets = {
        f"sets/{name}_{split}.txt": "".join(f"images/{n}.png {sign}\n" for n, sign in enumerate(signs))
        for name, signs in (("car", "1010"), ("dog", "0101"), ("cat", "1111"))
        for split in ("train", "trainval")
    }
    found = read(FLAT, sets)
    assert labels(found) == [None] * 4
    assert codes(found) == ["several_labels"]


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        ({"file_name": [f"{n}.png" for n in range(4)], "label": WANTED}, [("train", label) for label in WANTED]),
        ({"file_name": [f"{n}.png" for n in range(4)], "label": WANTED[:2]}, [("train", None)] * 4),
        (
            {"train": ["0.png", "1.png"], "test": ["2.png", "3.png"], "classes": ["a", "b"], "n": 4},
            [("train", None)] * 2 + [("test", None)] * 2,
        ),
        (
            {"train": ["0.png"], "test": ["1.png"], "unlabeled": ["2.png", "3.png"]},
            [("train", None), ("test", None), ("train", None), ("train", None)],
        ),
        ({"a": ["0.png", "2.png"], "b": ["1.png", "3.png"]}, [("train", label) for label in WANTED]),
        ({"a": ["0.png", "2.png"], "b": 3}, [("train", None)] * 4),
    ],
)
def test_an_object_of_lists_has_columns_classes_or_splits(found, wanted):
    assert read(FLAT, {"data.json": json.dumps(found)}).assigned == wanted


@pytest.mark.parametrize(
    ("document", "text", "wanted"),
    [
        (  # as of DeepFashion
            "list_eval_partition.txt",
            "4\nimage_name  evaluation_status\n0.png train\n1.png val\n2.png test\n3.png train\n",
            ["train", "val", "test", "train"],
        ),
        ("list_eval_partition.txt", "".join(f"{n}.png {n % 3}\n" for n in range(4)), ["train"] * 4),  # as of CelebA
        (
            "list_eval_partition.csv",
            "image_id,partition\n" + "".join(f"{n}.png,{n % 3}\n" for n in range(3)),
            ["train"] * 4,
        ),
        ("whole.txt", "".join(f"{n}.png {'train' if n else 'test'}\n" for n in range(4)), ["test"] + ["train"] * 3),
        ("val.txt", "0.png\n1.png\n2.png\n", ["train"] * 4),
        ("val.txt", "0.png\n1.png\n", ["val"] * 2 + ["train"] * 2),
    ],
)
def test_a_document_of_splits_gives_no_labels(document, text, wanted):
    found = read(FLAT, {document: text})
    assert (splits(found), labels(found)) == (wanted, [None] * 4)
