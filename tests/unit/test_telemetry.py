from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from slurper import telemetry
from slurper.printable import is_printable
from tests.unit.test_printable import HOSTILE


@pytest.fixture(autouse=True)
def _root_logger() -> Iterator[None]:
    """Put the process's logging back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    yield
    root.handlers = handlers
    root.setLevel(level)


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def lines(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


class TestLogging:
    def test_without_a_terminal_every_record_is_a_json_object(self, stream: io.StringIO) -> None:
        telemetry.configure_logging("info", stream=stream)
        telemetry.get_logger("slurper.x").info("task ended", job_id="j", seconds=1.5)
        (line,) = lines(stream)
        assert line["message"] == "task ended"
        assert (line["job_id"], line["seconds"]) == ("j", 1.5)
        assert (line["level"], line["logger"]) == ("info", "slurper.x")
        assert str(line["timestamp"]).endswith("Z")

    def test_libraries_log_in_the_same_form(self, stream: io.StringIO) -> None:
        telemetry.configure_logging("info", stream=stream)
        logging.getLogger("uvicorn.error").warning("listening on %s", 80, extra={"port": 80})
        (line,) = lines(stream)
        assert (line["message"], line["port"]) == ("listening on 80", 80)
        assert line["logger"] == "uvicorn.error"

    def test_on_request_lines_are_for_people(self, stream: io.StringIO) -> None:
        telemetry.configure_logging("info", stream=stream, as_json=False)
        telemetry.get_logger("slurper.x").warning("worker process lost", pid=7)
        text = stream.getvalue()
        assert "worker process lost" in text
        assert "pid=7" in text
        assert "\x1b" not in text, "colours are for terminals"

    def test_the_level_decides_what_is_shown(self, stream: io.StringIO) -> None:
        telemetry.configure_logging("warning", stream=stream)
        log = telemetry.get_logger("slurper.x")
        log.info("quiet")
        log.warning("loud")
        assert [line["message"] for line in lines(stream)] == ["loud"]

    def test_a_logger_made_before_is_configured_too(self, stream: io.StringIO) -> None:
        log = telemetry.get_logger("slurper.x")
        telemetry.configure_logging("error", stream=io.StringIO())
        telemetry.configure_logging("info", stream=stream)
        log.info("heard")
        assert [line["message"] for line in lines(stream)] == ["heard"]

    def test_an_unknown_level_is_refused(self) -> None:
        with pytest.raises(ValueError, match="not a log level"):
            telemetry.configure_logging("chatty")


class TestHostileTexts:
    @pytest.mark.parametrize("as_json", [True, False])
    @pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
    def test_no_text_acts_on_a_terminal_or_makes_a_line(
        self, stream: io.StringIO, text: str, *, as_json: bool
    ) -> None:
        telemetry.configure_logging("info", stream=stream, as_json=as_json)
        log = telemetry.get_logger("slurper.x")
        log.info("refused", path=text, nested={"a": [text]}, error=ValueError(text))
        logging.getLogger("another.library").info("GET %s", text, extra={"who": text})
        written = stream.getvalue()
        assert len(written.splitlines()) == 2
        assert all(is_printable(line) for line in written.splitlines())

    @pytest.mark.parametrize("as_json", [True, False])
    def test_nor_does_a_traceback(self, stream: io.StringIO, *, as_json: bool) -> None:
        telemetry.configure_logging("info", stream=stream, as_json=as_json)
        try:
            raise ValueError("".join(HOSTILE.values()))
        except ValueError:
            telemetry.get_logger("slurper.x").exception("it failed")
        assert all(is_printable(line) for line in stream.getvalue().split("\n"))
        assert "ValueError" in stream.getvalue()

    def test_nor_does_an_error_that_ends_the_process(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        error = ValueError("".join(HOSTILE.values()))
        telemetry.print_traceback(ValueError, error, None)
        written = capsys.readouterr().err
        assert written.startswith("ValueError: ")
        assert all(is_printable(line) for line in written.split("\n"))


class TestSecrets:
    @pytest.mark.parametrize(
        "field",
        [
            "secret",
            "secretAccessKey",
            "private_key",
            "session_token",
            "Authorization",
            "X-Auth-Key",
            "x_amz_signature",
            "password",
            "sealed",
        ],
    )
    def test_fields_that_sound_secret_are_masked(self, stream: io.StringIO, field: str) -> None:
        telemetry.configure_logging("info", stream=stream)
        telemetry.get_logger("slurper.x").info("request", **{field: "hush"})
        logging.getLogger("other").info("request", extra={field: "hush"})
        assert "hush" not in stream.getvalue()
        assert [line[field] for line in lines(stream)] == [telemetry.MASK] * 2

    def test_nested_fields_are_masked_and_others_kept(self, stream: io.StringIO) -> None:
        telemetry.configure_logging("info", stream=stream)
        body = {"sides": [{"bucket": "b", "secret": {"accessKeyId": "id", "key": "hush"}}]}
        telemetry.get_logger("slurper.x").info("create", body=body, token=None)
        (line,) = lines(stream)
        assert line["body"] == {"sides": [{"bucket": "b", "secret": telemetry.MASK}]}
        assert line["token"] is None

    @pytest.mark.parametrize("as_json", [True, False])
    def test_tracebacks_show_no_local_variables(
        self, stream: io.StringIO, *, as_json: bool
    ) -> None:
        telemetry.configure_logging("info", stream=stream, as_json=as_json)
        try:
            _fail("hu" + "sh")
        except ZeroDivisionError:
            telemetry.get_logger("slurper.x").exception("it failed")
        assert "ZeroDivisionError" in stream.getvalue()
        assert "_fail" in stream.getvalue()
        assert "hush" not in stream.getvalue()


def _fail(secret_access_key: str) -> float:
    return len(secret_access_key) / 0


class TestMetrics:
    def test_all_are_on_the_registry_that_was_given(self) -> None:
        registry = CollectorRegistry()
        metrics = telemetry.Metrics(registry)
        metrics.objects.labels("failed").inc(2)
        text = generate_latest(registry).decode()
        assert 'slurper_objects_total{outcome="failed"} 2.0' in text
        assert "slurper_worker_restarts_total 0.0" in text

    def test_two_sets_do_not_meet(self) -> None:
        first = telemetry.Metrics(CollectorRegistry())
        second = telemetry.Metrics(CollectorRegistry())
        first.worker_restarts.inc()
        assert second.registry.get_sample_value("slurper_worker_restarts_total") == 0
