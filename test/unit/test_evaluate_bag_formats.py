"""`jepa_ros evaluate bag` opens what others wrote, and finds the same in it."""

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import CompressionFormat, CompressionMode, Reader, StoragePlugin

from helpers import evaluated_bag as bags
from helpers import two_camera_bags
from helpers.evaluated_bag import QUICK, bag, expected, model  # noqa: F401  (fixtures)
from helpers.evaluated_bag import evaluate_unchanged as evaluate
from jepa_ros.bags.typestore import typestore

IMAGE_TYPE, RAW_TYPE = "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/Image"


def test_an_sqlite3_bag_gives_the_same_result(bag, model, tmp_path, expected):
    path = bags.copy(bag, tmp_path / "b", plugin=StoragePlugin.SQLITE3)
    assert evaluate(path, model, tmp_path)[0]["together"] == expected


@pytest.mark.parametrize(
    "plugin, mode",
    [("SQLITE3", "MESSAGE"), ("SQLITE3", "FILE"), ("MCAP", "MESSAGE"), ("MCAP", "FILE"), ("MCAP", "STORAGE")],
)
def test_zstd_compression_by_message_file_or_chunk_gives_the_same_result(bag, model, tmp_path, expected, plugin, mode):
    kind = {"mode": CompressionMode[mode], "format": CompressionFormat.ZSTD}
    path = bags.copy(bag, tmp_path / "b", plugin=StoragePlugin[plugin], **kind)
    assert evaluate(path, model, tmp_path)[0]["together"] == expected


def test_a_single_mcap_file_gives_the_same_result(bag, model, tmp_path, expected):
    (recording,) = bag.glob("*.mcap")
    assert evaluate(recording, model, tmp_path)[0]["together"] == expected


def test_a_bag_split_into_files_gives_the_same_result(bag, model, tmp_path, expected):
    assert evaluate(bags.split(bag, tmp_path / "b"), model, tmp_path)[0]["together"] == expected


def as_raw(encoding, code):
    """For `bags.copy`: compressed pictures as raw ones, rows padded, on /image."""
    types = typestore()

    def change(topic, kind, t, data):
        if kind != IMAGE_TYPE:
            return [(topic, kind, t, data)]
        old = types.deserialize_cdr(data, kind)
        pixels = cv2.cvtColor(cv2.imdecode(old.data, cv2.IMREAD_COLOR), code)
        rows = np.pad(pixels.reshape(len(pixels), -1), ((0, 0), (0, 4)))
        new = types.types[RAW_TYPE](
            header=old.header, height=pixels.shape[0], width=pixels.shape[1], encoding=encoding, is_bigendian=0,
            step=rows.shape[1], data=rows.ravel(),
        )  # fmt: skip
        return [("/image", RAW_TYPE, t, types.serialize_cdr(new, RAW_TYPE))]

    return change


@pytest.mark.parametrize("encoding, code", [("rgb8", cv2.COLOR_BGR2RGB), ("bgra8", cv2.COLOR_BGR2BGRA)])
def test_raw_images(bag, model, tmp_path, expected, encoding, code):
    path = bags.copy(bag, tmp_path / "b", as_raw(encoding, code))
    assert evaluate(path, model, tmp_path)[0]["together"] == expected
    topic = "/image/compressed"  # a person sees them in the result as well
    assert bags.stamps(tmp_path / "out" / "result.mcap", topic, IMAGE_TYPE) == bags.stamps(path, "/image", RAW_TYPE)


def test_the_named_one_of_several_cameras_is_used(bag, model, tmp_path, expected):
    path = two_camera_bags.add_wrist(bag, tmp_path / "b")
    summary, _ = evaluate(path, model, tmp_path, "--camera", "/image")
    assert summary["together"] == expected
    wrist, _ = evaluate(path, model, tmp_path, "--camera", "wrist/image")
    assert wrist["together"]["prediction"] != expected["prediction"]
    assert [c["topic"] for c in wrist["bags"][0]["quality"]["cameras"]] == ["/wrist/image/compressed"]


def test_a_two_camera_model_uses_synchronised_frames(bag, tmp_path):
    two = bags.write_model(tmp_path / "m", cameras=("frame", "wrist/frame"))
    path = two_camera_bags.add_wrist(bag, tmp_path / "b", late=20_000_000, keep=lambda number: number % 5)
    summary, _ = evaluate(path, two, tmp_path)
    quality = summary["bags"][0]["quality"]
    assert [c["topic"] for c in quality["cameras"]] == ["/image/compressed", "/wrist/image/compressed"]
    assert quality["frames"] == bags.FRAMES - bags.FRAMES // 5 and quality["unmatched_frames"] == bags.FRAMES // 5


def write_with_mcap_ros2(bag, path):
    """The bag as `mcap-ros2-support` writes it: one file, and no metadata.yaml."""
    from mcap_ros2.writer import Writer

    types, schemas = typestore(), {}
    with path.open("wb") as file, Reader(bag) as reader:
        writer = Writer(file)
        for connection, t, data in reader.messages():
            kind = connection.msgtype
            if kind not in schemas:
                schemas[kind] = writer.register_msgdef(kind, types.generate_msgdef(kind, ros_version=2)[0])
            message = _as_dict(types.deserialize_cdr(data, kind))
            writer.write_message(connection.topic, schemas[kind], message, log_time=t, publish_time=t)
        writer.finish()
    return path


def write_without_index(bag, path):
    """The bag as a plain row of records, written with `mcap`; a few messages are not in the order of time."""
    from mcap.writer import IndexType, Writer

    types, channels = typestore(), {}
    with path.open("wb") as file, Reader(bag) as reader:
        writer = Writer(
            file,
            use_chunking=False,
            use_statistics=False,
            use_summary_offsets=False,
            repeat_channels=False,
            repeat_schemas=False,
            index_types=IndexType.NONE,
        )
        writer.start("ros2", "test")
        messages = [(c.topic, c.msgtype, t, bytes(data)) for c, t, data in reader.messages()]
        messages[40], messages[45] = messages[45], messages[40]
        for topic, kind, t, data in messages:
            if topic not in channels:
                definition = types.generate_msgdef(kind, ros_version=2)[0].encode()
                channels[topic] = writer.register_channel(
                    topic, "cdr", writer.register_schema(kind, "ros2msg", definition)
                )
            writer.add_message(channels[topic], t, data, t)
        writer.finish()
    return path


def _as_dict(value):
    if hasattr(value, "__dataclass_fields__"):
        return {name: _as_dict(getattr(value, name)) for name in value.__dataclass_fields__ if name != "__msgtype__"}
    if isinstance(value, np.ndarray):
        return value.tobytes() if value.dtype == np.uint8 else value.tolist()
    return [_as_dict(v) for v in value] if isinstance(value, list) else value


@pytest.mark.parametrize("write", [write_with_mcap_ros2, write_without_index])
def test_a_file_of_another_library(bag, model, tmp_path, expected, write):
    assert evaluate(write(bag, tmp_path / "m.mcap"), model, tmp_path)[0]["together"] == expected
