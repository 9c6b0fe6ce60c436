"""The page's server over real HTTP: what it serves, and what it refuses."""

from __future__ import annotations

import base64
import http.client
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import flowzoo
from flowzoo.data import get_dataset
from flowzoo.demo.attributes import brightness, direction_of, slant, width
from flowzoo.demo.server import MOST_BYTES, DemoServer
from flowzoo.demo.work import Work, local_models
from flowzoo.errors import InputError, UnknownModel
from flowzoo.evaluation import trained_model
from flowzoo.factory import create
from flowzoo.testing.randomize import randomize

MODEL = "nice-mnist"
DIGIT = get_dataset("mnist").load("test")[3]


@pytest.fixture(scope="module")
def server() -> Iterator[DemoServer]:
    with DemoServer(Work([MODEL, "realnvp-mnist"]), 0) as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield found
        found.shutdown()
        thread.join(5)


def ask(
    server: DemoServer, path: str, body: Any = None, *, method: str = "", **headers: str
) -> tuple[int, Any, http.client.HTTPResponse]:
    """One request; the answer's status, its JSON or text, and the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    content = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if content is not None:
        sent.setdefault("Content-Type", "application/json")
    connection.request(method or ("GET" if body is None else "POST"), path, content, sent)
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    kind = answer.headers.get_content_type()
    return answer.status, json.loads(text) if kind == "application/json" else text.decode(), answer


def pixels(image: torch.Tensor) -> str:
    return base64.b64encode(image.numpy().tobytes()).decode()


def images(texts: list[str]) -> torch.Tensor:
    found = [torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8) for text in texts]
    return torch.stack(found).reshape(-1, 1, 28, 28)


# --- what it serves -----------------------------------------------------------------------------------------


def test_the_page_needs_nothing_from_elsewhere(server: DemoServer) -> None:
    status, page, answer = ask(server, "/")
    assert status == 200
    assert "<title>flowzoo demo</title>" in page
    assert "//" not in page.replace("// ", "")  # neither an address nor a path of another host
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert policy.count("sha256-") == 2
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_models_are_those_whose_weights_are_here(server: DemoServer) -> None:
    assert ask(server, "/api/models")[1] == {"models": [MODEL, "realnvp-mnist"]}
    assert {"glow-mnist", "nice-mnist", "glow-celeba64"} <= set(local_models())
    assert "glow-cifar10" not in local_models()
    assert "cdf-points" not in local_models(), "vectors are nothing that the page can show"
    _, found, _ = ask(server, "/api/model", {"model": MODEL})
    assert found["shape"] == [1, 28, 28]
    assert found["temperature"] == 0.8
    assert found["classes"] == 0


def test_samples_are_the_flows_own(server: DemoServer) -> None:
    body = {"model": MODEL, "count": 3, "seed": 5, "temperature": 0.7}
    status, found, _ = ask(server, "/api/sample", body)
    assert status == 200
    expected = flowzoo.load(MODEL).sample(3, temperature=0.7, seed=5)
    assert torch.equal(images(found["images"]), expected)
    assert all(2 < bits < 8 for bits in found["bits_per_dim"])


def test_a_way_ends_at_its_images(server: DemoServer) -> None:
    black = torch.zeros_like(DIGIT)
    body = {"model": MODEL, "a": pixels(DIGIT), "b": pixels(black), "steps": 5}
    _, found, _ = ask(server, "/api/interpolate", body)
    way = images(found["images"])
    assert len(way) == 5
    assert torch.equal(way[0], DIGIT)
    assert torch.equal(way[-1], black)


def test_a_drawing_has_bits_and_comes_back(server: DemoServer) -> None:
    _, found, _ = ask(server, "/api/score", {"model": "realnvp-mnist", "image": pixels(DIGIT)})
    assert torch.equal(images([found["reconstruction"]])[0], DIGIT)
    assert (found["wrong_pixels"], found["levels"]) == (0, 3)
    assert found["coarse"] != found["reconstruction"]
    _, empty, _ = ask(
        server, "/api/score", {"model": "realnvp-mnist", "image": pixels(torch.zeros_like(DIGIT))}
    )
    assert empty["bits_per_dim"] < 0.2 < found["bits_per_dim"] < 4


def test_an_attribute_moves_the_image_its_way(server: DemoServer) -> None:
    body = {"model": "realnvp-mnist", "attribute": "slant", "image": pixels(DIGIT)}
    _, found, _ = ask(server, "/api/attribute", body)
    moved = images(found["images"])
    strengths = found["strengths"]
    assert torch.equal(moved[strengths.index(0.0)], DIGIT)
    leaning = slant(moved)
    assert leaning[strengths.index(0.4)] > leaning[strengths.index(0.0)] + 0.05
    assert leaning[strengths.index(-0.4)] < leaning[strengths.index(0.0)] - 0.05


def test_attributes_are_what_they_are_called() -> None:
    square = torch.zeros(4, 1, 9, 9, dtype=torch.uint8)
    for k in range(9):
        square[0, 0, k, 8 - k] = 255  # leans to the right
        square[1, 0, k, k] = 255
        square[2, 0, 4, k] = 255
        square[3, 0, k, 4] = 255
    assert slant(square)[:2].tolist() == pytest.approx([1, -1])
    assert width(square)[2] > 1 > width(square)[3]
    assert (brightness(square) > 0).all()


def test_directions_are_found_without_data() -> None:
    flow = randomize(create("glow-tiny"), 0, scale=0.02).eval()
    assert direction_of(flow, "warmth", "").vector.shape == (flow.dims,)
    with pytest.raises(InputError, match="no attribute"):
        direction_of(flow, "charm", "")


def test_a_conditional_model_is_asked_for_a_class(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    flow = create("glow-tiny", classes=3)
    flow.initialize(torch.randint(0, 256, (64, 3, 8, 8), dtype=torch.uint8), torch.randint(3, (64,)))
    target = trained_model.Target(name="labelled", flow=flow.eval(), entry=None, dataset="")
    monkeypatch.setattr(trained_model, "find_target", lambda _: target)
    work = Work(["labelled"])
    assert work.do("model", {"model": "labelled"})["classes"] == 3
    drawn = {"model": "labelled", "count": 2, "seed": 1, "temperature": 1}
    found = work.do("sample", {**drawn, "label": 2})["images"]
    expected = flow.sample(2, 2, seed=1)
    assert found == [pixels(image) for image in expected]
    with pytest.raises(InputError, match="0 to 2"):
        work.do("sample", {**drawn, "label": 3})
    ends = {"a": found[0], "b": found[1], "steps": 3, "label": 1}
    assert work.do("interpolate", {"model": "labelled", **ends})["images"][0] == found[0]
    scored = work.do("score", {"model": "labelled", "image": found[0], "label": 1})
    assert scored["wrong_pixels"] == 0


# --- what it refuses ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/api/models"])
def test_other_hosts_are_refused(server: DemoServer, path: str) -> None:
    for host in ("evil.example", f"evil.example:{server.server_port}", "127.0.0.1", "", "127.0.0.1:1"):
        status, found, _ = ask(server, path, Host=host)
        assert status == 403
        assert server.url in found["error"]
    assert ask(server, path, Host=f"localhost:{server.server_port}")[0] == 200


def test_other_origins_are_refused(server: DemoServer) -> None:
    for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec_Fetch_Site": "cross-site"}):
        status, found, answer = ask(server, "/api/model", {"model": MODEL}, **headers)
        assert status == 403
        assert "refused" in found["error"]
        assert "Access-Control-Allow-Origin" not in answer.headers
    own = {"Origin": server.url.rstrip("/"), "Sec_Fetch_Site": "same-origin"}
    assert ask(server, "/api/model", {"model": MODEL}, **own)[0] == 200
    assert ask(server, "/", Sec_Fetch_Site="cross-site")[0] == 200  # a link to the page


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "message"),
    [
        ("/nothing", None, {}, 404, "the page is at /"),
        ("/../../etc/passwd", None, {}, 404, "nothing at"),
        ("/api/sample", None, {}, 405, "POST"),
        ("/api/nothing", {}, {}, 404, "/api/sample"),
        ("/api/score", b"{", {}, 400, "no JSON"),
        ("/api/score", b"[" * 100_000, {}, 400, "no JSON"),
        ("/api/score", b"\xff\xfe", {}, 400, "no JSON"),
        ("/api/score", [1], {}, 400, "object"),
        ("/api/score", b"model=x", {"Content_Type": "application/x-www-form-urlencoded"}, 415, "application/json"),
        ("/api/score", {"model": MODEL}, {"Content_Type": "text/plain"}, 415, "application/json"),
        ("/api/score", b"x" * (MOST_BYTES + 1), {}, 413, "at most"),
        ("/api/score", {}, {}, 400, "'model' is missing"),
        ("/api/score", {"model": "glow-cifar10"}, {}, 404, "has no model"),
        ("/api/score", {"model": MODEL, "image": "AAAA"}, {}, 400, "no image of this model"),
        ("/api/score", {"model": MODEL, "image": "*"}, {}, 400, "no image of this model"),
        ("/api/sample", {"model": MODEL, "count": 10**9, "seed": 0, "temperature": 1}, {}, 400, "1 to 24"),
        ("/api/sample", {"model": MODEL, "count": 1, "seed": 0, "temperature": "hot"}, {}, 400, "a number of 0 to 2"),
        ("/api/sample", {"model": MODEL, "count": 1.5, "seed": 0, "temperature": 1}, {}, 400, "whole number"),
        ("/api/sample", b'{"model": "nice-mnist", "count": NaN}', {}, 400, "'count' is nan"),
        ("/api/attribute", {"model": MODEL, "attribute": "charm", "image": pixels(DIGIT)}, {}, 400, "no attribute"),
    ],
)  # fmt: skip
def test_what_cannot_be_served_is_said(
    server: DemoServer, path: str, body: Any, headers: dict[str, str], status: int, message: str
) -> None:
    found = ask(server, path, body, **headers)
    assert found[0] == status
    assert message in found[1]["error"]
    assert ask(server, "/api/models")[0] == 200


def test_a_body_that_is_far_too_large_gets_its_answer(server: DemoServer) -> None:
    for host in ({}, {"Host": "evil.example"}):
        status, found, answer = ask(server, "/api/score", b"x" * 5_000_000, **host)
        assert status == (403 if host else 413)
        assert found["error"]
        assert answer.headers["Connection"] == "close"


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "BREW"])
def test_other_methods_get_an_answer(server: DemoServer, method: str) -> None:
    status, found, _ = ask(server, "/", method=method)
    assert status == 501
    assert "expected GET" in found["error"]


def test_a_body_without_a_length_is_refused(server: DemoServer) -> None:
    status, found, _ = ask(server, "/api/score", method="POST", Transfer_Encoding="chunked")
    assert status == 411
    assert "Content-Length" in found["error"]


def test_it_listens_on_this_machine_alone_and_says_when_a_port_is_taken(server: DemoServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    for port in (server.server_port, 70_000):
        with pytest.raises(InputError, match=f"port {port} cannot be used"):
            DemoServer(Work([]), port)


def test_a_model_that_cannot_be_loaded_is_a_line(tmp_path: Path) -> None:
    work = Work([str(tmp_path)])
    with pytest.raises(InputError, match="cannot be used"):
        work.do("model", {"model": str(tmp_path)})
    with pytest.raises(UnknownModel, match="has no model"):
        work.do("model", {"model": "other"})
