"""What is said in Prometheus' text format."""

from infra.drivers.http.exposition import counter, families, gauge, histogram, text_of

TOLD = {
    "seen_total": counter("Seen, by whom", ("reader",)),
    "age_seconds": gauge("Age; absent: not known"),
    "waits": gauge("Who waits, by role", ("role",)),
    "took_seconds": gauge("Times, by edge", ("edge",)),
}


def test_a_label_may_hold_any_text() -> None:
    text = text_of(families(TOLD, {"seen_total": {('a "b"\\\n',): 3}})).decode()
    assert text.splitlines() == [
        "# HELP touchfold_seen_total Seen, by whom",
        "# TYPE touchfold_seen_total counter",
        'touchfold_seen_total{reader="a \\"b\\"\\\\\\n"} 3.0',
    ]


def test_what_is_not_known_is_left_out_and_zero_is_said() -> None:
    assert text_of(families(TOLD, {"age_seconds": None, "waits": {}})) == b""
    assert text_of(families(TOLD, {"age_seconds": 0})).endswith(b"\ntouchfold_age_seconds 0.0\n")


def test_a_large_count_keeps_every_digit() -> None:
    text = text_of(families(TOLD, {"age_seconds": 2**53 - 1})).decode()
    assert float(text.split()[-1]) == 2**53 - 1


def test_a_histogram_ends_with_its_sum_and_count() -> None:
    text = text_of([histogram("took_seconds", TOLD["took_seconds"], {("door",): ({"0.5": 1, "+Inf": 3}, 70.25)})])
    assert sorted(text.decode().splitlines()[2:]) == [
        'touchfold_took_seconds_bucket{edge="door",le="+Inf"} 3.0',
        'touchfold_took_seconds_bucket{edge="door",le="0.5"} 1.0',
        'touchfold_took_seconds_count{edge="door"} 3.0',
        'touchfold_took_seconds_sum{edge="door"} 70.25',
    ]
