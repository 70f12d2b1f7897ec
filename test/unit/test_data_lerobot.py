"""LeRobot dataset format v3.0: exported, validated field by field, imported again, and from others."""

import json
import shutil

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers import foreign_bags, reach_bag
from helpers.foreign_datasets import build as build_foreign
from jepa_ros.datasets.build import build_dataset as build
from jepa_ros.datasets.lerobot.export import FileSizes, colour_statistics, histogram, vector_statistics
from jepa_ros.datasets.lerobot.export import export_dataset as export
from jepa_ros.datasets.lerobot.files import read_video
from jepa_ros.datasets.lerobot.importing import import_dataset as import_
from jepa_ros.datasets.lerobot.validation import validate
from jepa_ros.datasets.store import ARRAYS, Dataset
from jepa_ros.errors import InputError

EXACT = [name for name in ARRAYS if name != "frames"]
INFO, STATS, EPISODES = "meta/info.json", "meta/stats.json", "meta/episodes/chunk-000/file-000.parquet"
DATA, VIDEO = "data/chunk-000/file-000.parquet", "videos/observation.images.image/chunk-000/file-000.mp4"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lerobot")
    assert build(bags=[reach_bag.write(folder / "bag")], out=folder / "data", size=32) == 0
    return Dataset(folder / "data")


@pytest.fixture(scope="module")
def exported(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported") / "lerobot"
    assert export(dataset=data.path, out=out) == 0
    return out


@pytest.fixture
def copy(exported, tmp_path):
    return shutil.copytree(exported, tmp_path / "copy")


def expect_same(one: Dataset, other: Dataset, psnr: float):
    """All exact but the frames, which are as near as video is."""
    assert len(one.index.episodes) == len(other.index.episodes) and one.layout == other.layout
    wrong, count = 0.0, 0
    for a, b in zip(one.index.episodes, other.index.episodes, strict=True):
        assert a.model_dump(exclude={"start", "shard"}) == b.model_dump(exclude={"start", "shard"})
        for name in EXACT:
            np.testing.assert_array_equal(one.rows(a, name), other.rows(b, name))
        error = one.rows(a, "frames").astype(float) - other.rows(b, "frames")
        wrong, count = wrong + (error**2).sum(), count + error.size
    assert 10 * np.log10(255**2 * count / max(wrong, 1e-9)) > psnr


def test_export_and_import_are_lossless_except_for_video_compression(data, exported, tmp_path):
    assert validate(exported) == []
    assert import_(source=exported, out=tmp_path / "data") == 0
    back = Dataset(tmp_path / "data")
    expect_same(data, back, psnr=38)
    assert back.urdf() == data.urdf() and back.index.split_by == "marker" and back.index.bags == data.index.bags


def test_files_and_fields_follow_the_lerobot_format(data, exported):
    files = sorted(str(p.relative_to(exported)) for p in exported.rglob("*") if p.is_file())
    assert files == sorted([DATA, EPISODES, INFO, "meta/jepa_ros.json", STATS, "meta/tasks.parquet", VIDEO])
    info = json.loads((exported / INFO).read_text())
    assert info["codebase_version"] == "v3.0" and info["fps"] == 10 and info["total_frames"] == 150
    assert info["data_path"] == "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
    assert info["features"]["observation.images.image"]["info"]["video.codec"] == "h264"
    state = info["features"]["observation.state"]
    assert state["dtype"] == "float32" and state["shape"] == [15] and len(state["names"]) == 15
    rows = pq.read_table(exported / DATA)
    assert rows.schema.field("observation.state").type == pa.list_(pa.float32(), 15)
    assert rows.schema.field("timestamp").type == pa.float32() and rows.schema.field("index").type == pa.int64()
    lines = pq.read_table(exported / EPISODES).to_pylist()
    assert [line["length"] for line in lines] == [25] * 6 and lines[1]["dataset_from_index"] == 25
    assert lines[1]["videos/observation.images.image/from_timestamp"] == 2.5
    assert np.shape(lines[0]["stats/observation.images.image/mean"]) == (3, 1, 1)
    groups = pq.ParquetFile(exported / DATA).metadata
    assert groups.num_row_groups == 6 and groups.row_group(0).num_rows == 25, "a row group an episode"


def test_tasks_are_the_pandas_index(exported):
    table = pq.read_table(exported / "meta" / "tasks.parquet")
    note = json.loads(table.schema.metadata[b"pandas"])
    assert note["index_columns"] == ["task"] and table.to_pylist() == [{"task_index": 0, "task": "play"}]


def test_statistics_equal_those_of_the_values(data, exported):
    stats = json.loads((exported / STATS).read_text())
    actions = np.concatenate([data.rows(e, "actions") for e in data.index.episodes]).astype(float)
    for name, value in (("mean", actions.mean(0)), ("std", actions.std(0)), ("q90", np.quantile(actions, 0.9, axis=0))):
        np.testing.assert_allclose(stats["action"][name], value, atol=1e-6)
    frames = np.concatenate([data.rows(e, "frames")[:, 0] for e in data.index.episodes]) / 255.0
    found = stats["observation.images.image"]
    np.testing.assert_allclose(np.ravel(found["mean"]), frames.mean((0, 1, 2)), atol=1e-6)
    np.testing.assert_allclose(np.ravel(found["std"]), frames.std((0, 1, 2)), atol=1e-6)
    assert found["count"] == [150]


def test_statistics_of_colours_and_of_nan_values_are_right():
    frames = np.zeros((4, 2, 2, 3), np.uint8)
    frames[..., 1], frames[2:, ..., 2] = 51, 255
    found = colour_statistics(*histogram(frames))
    assert np.ravel(found["max"]).tolist() == [0.0, 0.2, 1.0] and np.ravel(found["min"]).tolist() == [0.0, 0.2, 0.0]
    assert np.ravel(found["q10"]).tolist() == [0.0, 0.2, 0.0] and np.ravel(found["q90"])[2] == 1.0
    values = np.array([[np.nan, np.nan], [1.0, np.nan], [3.0, np.nan]])
    assert vector_statistics(values)["mean"] == [2.0, 0.0]


def test_large_datasets_are_split_into_several_files(data, tmp_path):
    assert export(dataset=data.path, out=tmp_path / "l", sizes=FileSizes(data=0.004, video=0.0)) == 0
    assert len(list((tmp_path / "l").glob("data/*/*.parquet"))) > 1
    assert len(list((tmp_path / "l").glob("videos/*/*/*.mp4"))) > 1
    assert import_(source=tmp_path / "l", out=tmp_path / "data") == 0
    expect_same(data, Dataset(tmp_path / "data"), psnr=38)


def test_two_views_of_another_robot_survive_export_and_import(tmp_path):
    bag = foreign_bags.write(tmp_path / "bag", cameras=("/camera/image", "/wrist/image"))
    made, _ = build_foreign(tmp_path, bag, {"views": [{"topic": "/wrist/image"}, {"topic": "/camera/image"}]})
    assert export(dataset=made.path, out=tmp_path / "l") == 0
    assert sorted(p.name for p in (tmp_path / "l" / "videos").iterdir()) == [
        "observation.images.camera_image",
        "observation.images.wrist_image",
    ]
    assert import_(source=tmp_path / "l", out=tmp_path / "back") == 0
    expect_same(made, Dataset(tmp_path / "back"), psnr=30)


def test_a_dataset_without_jepa_ros_metadata_is_imported(data, copy, tmp_path):
    (copy / "meta" / "jepa_ros.json").unlink()
    assert import_(source=copy, out=tmp_path / "data", size=16) == 0
    back = Dataset(tmp_path / "data")
    assert back.layout.action_space == "foreign" and back.layout.fields == data.layout.state_names
    assert back.layout.size == 16 and back.layout.rate == 10
    np.testing.assert_array_equal(
        back.rows(back.index.episodes[2], "actions"), data.rows(data.index.episodes[2], "actions")
    )


def test_images_stored_in_parquet_are_imported(data, copy, tmp_path):
    (copy / "meta" / "jepa_ros.json").unlink()
    frames = [rgb for _, rgb in read_video(copy / VIDEO)]
    shutil.rmtree(copy / "videos")
    table = pq.read_table(copy / DATA)
    stored = [{"bytes": cv2.imencode(".png", f[..., ::-1])[1].tobytes(), "path": None} for f in frames]
    pq.write_table(table.append_column("observation.images.image", pa.array(stored)), copy / DATA)
    change(copy / INFO, lambda info: info["features"]["observation.images.image"].update(dtype="image"))
    assert validate(copy) == []
    assert import_(source=copy, out=tmp_path / "data", size=32) == 0
    back = Dataset(tmp_path / "data")
    np.testing.assert_array_equal(back.rows(back.index.episodes[1], "frames")[:, 0], frames[25:50])


# --- what is not valid -----------------------------------------------------------------------------------------------


def change(path, edit):
    value = json.loads(path.read_text())
    edit(value)
    path.write_text(json.dumps(value))


def change_table(path, name, edit):
    """Replace a column by what `edit` makes of its list; None drops it."""
    table = pq.read_table(path)
    index, kind = table.schema.get_field_index(name), table.schema.field(name).type
    values = edit(table[name].to_pylist())
    if values is None:
        pq.write_table(table.remove_column(index), path)
    else:
        pq.write_table(table.set_column(index, name, pa.array(values, kind)), path)


@pytest.mark.parametrize(
    "field, value, words",
    [
        ("codebase_version", "v2.1", "codebase_version: expected v3.0, found v2.1"),
        ("fps", 0, "fps: expected a number above 0"),
        ("fps", 12, "frames, found 2.5 s"),
        ("fps", "10", "fps: expected another type"),
        ("total_frames", 149, "total_frames: expected 150"),
        ("total_episodes", 7, "expected 7 lines, found 6"),
        ("total_tasks", 2, "expected the numbers 0 to 1"),
        ("features", {}, "features: timestamp: expected"),
        ("data_path", "data/{nothing}.parquet", "expected a path template"),
        ("data_path", "../../{chunk_index}{file_index}", "expected files inside the dataset"),
        ("video_path", None, "video_path: expected a template, found none"),
        ("chunks_size", None, "chunks_size: expected another type"),
    ],
)
def test_an_invalid_info_field_is_named(copy, field, value, words):
    change(copy / INFO, lambda info: info.update({field: value}))
    assert any(words in problem for problem in validate(copy)), validate(copy)


@pytest.mark.parametrize("field", ["codebase_version", "fps", "features", "data_path", "total_frames", "chunks_size"])
def test_a_missing_info_field_is_named(copy, field):
    change(copy / INFO, lambda info: info.pop(field))
    assert validate(copy) == [f"meta/info.json: {field}: expected a value, found none"]


@pytest.mark.parametrize(
    "feature, part, value, words",
    [
        ("action", "dtype", "float16", "action: expected"),
        ("action", "dtype", "colour", "dtype: expected one of numpy's"),
        ("action", "shape", [3], "names: expected 3, found 2"),
        ("action", "shape", [0], "expected dtype, shape and names"),
        ("action", "names", ["x"], "names: expected 2, found 1"),
        ("observation.images.image", "shape", [32, 32], "expected height, width and channels"),
        ("observation.images.image", "shape", [48, 32, 3], "expected 48 x 32 pixels"),
        ("index", "dtype", "int32", "features: index: expected"),
    ],
)
def test_an_invalid_feature_is_named(copy, feature, part, value, words):
    change(copy / INFO, lambda info: info["features"][feature].update({part: value}))
    assert any(words in problem for problem in validate(copy)), validate(copy)


@pytest.mark.parametrize(
    "path, column, edit, words",
    [
        (DATA, "index", lambda v: v[:-1] + [999], "index: expected consecutive numbers"),
        (DATA, "frame_index", lambda v: v[::-1], "frame_index: expected consecutive"),
        (DATA, "timestamp", lambda v: [t + 0.01 for t in v], "timestamp: expected frame_index / fps"),
        (DATA, "task_index", lambda v: [5] * len(v), "task_index: expected task numbers of"),
        (DATA, "action", lambda v: None, "expected the columns ['action']"),
        (EPISODES, "length", lambda v: [24, *v[1:]], "episode 0: expected rows from 0"),
        (EPISODES, "dataset_to_index", lambda v: [30, *v[1:]], "episode 0: expected rows"),
        (EPISODES, "tasks", lambda v: [["dance"], *v[1:]], "tasks: expected some of"),
        (EPISODES, "data/file_index", lambda v: None, "expected the columns ['data/file_index']"),
        (EPISODES, "data/file_index", lambda v: [3, *v[1:]], "expected a parquet file"),
        (
            EPISODES,
            "videos/observation.images.image/to_timestamp",
            lambda v: [9.0, *v[1:]],
            "expected 25 frames, found 9 s",
        ),
        ("meta/tasks.parquet", "task_index", lambda v: [4], "expected the numbers 0 to 0"),
    ],
)
def test_an_invalid_column_is_named(copy, path, column, edit, words):
    change_table(copy / path, column, edit)
    assert any(words in problem for problem in validate(copy)), validate(copy)


@pytest.mark.parametrize(
    "edit, words",
    [
        (lambda s: s.pop("action"), "action: min: expected a value, found none"),
        (lambda s: s["action"].pop("std"), "action: std: expected a value"),
        (lambda s: s["action"].update(mean=[1.0]), "action: mean: expected shape (2,), found (1,)"),
        (lambda s: s["observation.images.image"].update(min=[0, 0, 0]), "expected shape (3, 1, 1), found (3,)"),
    ],
)
def test_invalid_statistics_are_named(copy, edit, words):
    change(copy / STATS, edit)
    assert any(words in problem for problem in validate(copy)), validate(copy)


@pytest.mark.parametrize("path", [INFO, STATS, EPISODES, DATA, VIDEO, "meta/tasks.parquet"])
@pytest.mark.parametrize("damage", ["gone", "cut", "garbage"])
def test_a_corrupted_file_is_named_and_nothing_is_imported(copy, tmp_path, path, damage):
    content = (copy / path).read_bytes()
    (copy / path).unlink()
    if damage != "gone":
        (copy / path).write_bytes(content[: len(content) // 2] if damage == "cut" else b"\xa5" * 500)
    problems = validate(copy)
    assert problems and all("\n" not in problem for problem in problems)
    with pytest.raises(InputError, match=f"lerobot {copy}"):
        import_(source=copy, out=tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_video_with_too_few_frames_is_refused(copy):
    def late(values):
        return [v + 2.5 for v in values]

    for end in ("from", "to"):
        change_table(copy / EPISODES, f"videos/observation.images.image/{end}_timestamp", late)
    assert any("expected 175 frames, found 150" in problem for problem in validate(copy))


def test_exporting_what_the_format_does_not_support_is_refused(tmp_path):
    bag = foreign_bags.write(tmp_path / "bag")
    made, _ = build_foreign(tmp_path, bag, rate=7.5)
    with pytest.raises(InputError, match="the format needs a whole number of frames per second, found 7.5 Hz"):
        export(dataset=made.path, out=tmp_path / "l")
    assert not (tmp_path / "l").exists()
    with pytest.raises(InputError, match="format: expected lerobot, found 'hdf5'"):
        export(dataset=made.path, out=tmp_path / "l", format="hdf5")


def test_export_and_import_do_not_overwrite(data, exported, tmp_path):
    with pytest.raises(InputError, match="exists and is not empty"):
        export(dataset=data.path, out=exported)
    with pytest.raises(InputError, match="exists and is not empty"):
        import_(source=exported, out=data.path)
