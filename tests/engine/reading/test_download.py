"""Without a connection, downloads of libraries fail at once, and say what to take instead."""

import socket
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from robustmaps.engine.errors import InputError
from robustmaps.engine.reading import download
from robustmaps.engine.reading.download import downloading

NOWHERE = "http://robustmaps.invalid"


def fetch(url):
    with urllib.request.urlopen(url, timeout=5) as answer:
        return answer.status


def test_a_download_fails_with_the_alternative():
    with (
        pytest.raises(InputError, match=r"weights of x: can't be downloaded, since robustmaps\.invalid does not"),
        downloading("the weights of x", NOWHERE, "take another"),
    ):
        fetch("http://example.invalid/file")
    assert socket.getaddrinfo("localhost", 80)


def test_what_was_downloaded_before_is_still_found(tmp_path):
    (tmp_path / "file").write_text("here")
    with downloading("x", NOWHERE, "take another"):
        assert (tmp_path / "file").read_text() == "here"


def test_a_server_that_is_silent_counts_as_none(monkeypatch):
    monkeypatch.setattr(download, "_WAIT_S", 0.3)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(InputError, match="does not answer"), downloading("x", url, "take another"):
            raise OSError("no")


def test_an_error_that_no_connection_could_have_mended_is_left_alone():
    with pytest.raises(ValueError, match="no such weights"), downloading("x", NOWHERE, "take another"):
        raise ValueError("no such weights")
    with pytest.raises(InputError, match="does not answer"), downloading("x", NOWHERE, "take another"):
        raise ValueError("could not be made") from ConnectionError("offline")


class Refusing(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.send_error(404)

    def log_message(self, *_):
        pass


def test_errors_of_a_server_that_answers_are_left_alone():
    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(KeyError), downloading("x", f"http://127.0.0.1:{server.server_port}", "take another"):
            raise KeyError("another")
        server.shutdown()
