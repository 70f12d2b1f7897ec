import pytest

from jepa_ros.errors import InputError
from jepa_ros.nodes.common.diagnostics import Meter, Throttle
from jepa_ros.nodes.common.parameters import Parameter


@pytest.mark.parametrize(
    ("parameter", "value", "expected"),
    [
        (Parameter("a", 1.0, "."), 3, 3.0),
        (Parameter("a", 1, "."), 3, 3),
        (Parameter("a", True, "."), False, False),
        (Parameter("a", "x", ".", choices=("x", "y")), "y", "y"),
        (Parameter("a", [1.0], ".", range=(0, 2)), (0, 2), [0.0, 2.0]),
        (Parameter("a", [], ".", element=str), ["p", "q"], ["p", "q"]),
    ],
)
def test_valid_values_are_returned_in_the_parameter_s_type(parameter, value, expected):
    checked = parameter.check(value)
    assert checked == expected and type(checked) is type(expected)


@pytest.mark.parametrize(
    ("parameter", "value", "expectation"),
    [
        (Parameter("a", 1.0, ".", range=(0, 2), unit="m"), 2.1, "0 to 2 m"),
        (Parameter("a", 1.0, "."), float("inf"), "a finite number"),
        (Parameter("a", 1.0, "."), True, "a number"),
        (Parameter("a", 1, "."), 1.5, "an integer"),
        (Parameter("a", 1, "."), True, "an integer"),
        (Parameter("a", True, "."), 1, "true or false"),
        (Parameter("a", "x", ".", choices=("x", "y")), "z", "one of x, y"),
        (Parameter("a", [1.0], ".", range=(0, 2)), [1.0, 3.0], "0 to 2"),
        (Parameter("a", [1.0], "."), 1.0, "a list"),
        (Parameter("a", ["x"], "."), "xyz", "a list"),
    ],
)
def test_invalid_values_are_refused_by_name(parameter, value, expectation):
    with pytest.raises(InputError, match=f"parameter 'a': expected {expectation}, found "):
        parameter.check(value)


def test_a_throttle_passes_one_event_per_period_and_counts_the_others():
    now = 0.0
    throttle = Throttle(lambda: now)
    assert throttle.passes("a", 5.0) == 0
    now = 1.0
    assert throttle.passes("a", 5.0) is None and throttle.passes("b", 5.0) == 0
    now = 4.9
    assert throttle.passes("a", 5.0) is None
    now = 5.1
    assert throttle.passes("a", 5.0) == 2


def test_a_meter_returns_events_per_second():
    now = 0.0
    meter = Meter(lambda: now)
    for _ in range(30):
        meter.count()
    now = 2.0
    assert meter.rate() == 15.0 and meter.total == 30
