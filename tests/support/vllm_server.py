"""What TRL 1.16 says to a vLLM server and hears from it, on loopback, with a real model of transformers behind it.

Of the wire: /health, /v1/models, /v1/chat/completions/render (images alone to features, with the places that they
take) and /inference/v1/generate (token ids and features to tokens with their log-probabilities), as TRL's client writes
and reads them. Features are the image itself; what a real server puts there TRL passes on unread.
"""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch
from PIL import Image


class Engine:
    """A model and its processor, which may shrink images otherwise, or see none (`blind`)."""

    def __init__(self, model: Any, processor: Any, *, blind: bool = False) -> None:
        self.model, self.processor, self.blind = model, processor, blind
        self.asked: list[str] = []

    def render(self, body: dict[str, Any]) -> dict[str, Any]:
        """Features of the images of a conversation."""
        parts = [part for turn in body["messages"] for part in turn["content"] if part["type"] == "image_url"]
        imgs = [part["image_url"]["url"].partition("base64,")[2] for part in parts]
        lengths = [self._pixels(one)["tokens"] for one in imgs]
        places = [{"offset": 3, "length": length} for length in lengths]
        return {"features": {"mm_placeholders": {"image": places}, "kwargs_data": {"image": imgs}}}

    def generate(self, body: dict[str, Any]) -> dict[str, Any]:
        """Tokens after `token_ids`, each with its log-probability."""
        how, (place,) = body["sampling_params"], body["features"]["mm_placeholders"]["image"]
        pixels = self._pixels(body["features"]["kwargs_data"]["image"][0])
        assert place["length"] == pixels.pop("tokens"), "the places and the features of an image do not fit"
        ids = torch.tensor([body["token_ids"]])
        kinds = (ids == self.processor.image_token_id).long()
        assert kinds[0, place["offset"] :][: place["length"]].all()
        out = self.model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), mm_token_type_ids=kinds, **pixels, do_sample=True,
            max_new_tokens=how["max_tokens"], temperature=how["temperature"], top_k=how["top_k"], top_p=how["top_p"],
            output_scores=True, return_dict_in_generate=True,
        )  # fmt: skip
        written = out.sequences[0, ids.shape[1] :].tolist()
        tokens = []
        for token, score in zip(written, out.scores, strict=True):
            logp = score[0].float().log_softmax(-1)[token].item()
            tokens.append({"token": f"token_id:{token}", "logprob": logp, "top_logprobs": []})
        return {"choices": [{"token_ids": written, "logprobs": {"content": tokens}}]}

    def _pixels(self, img: str) -> dict[str, Any]:
        image = Image.open(io.BytesIO(base64.b64decode(img)))
        seen = Image.new("RGB", image.size, "white") if self.blind else image
        made = self.processor.image_processor(images=[seen], return_tensors="pt")
        tokens = int(made["image_grid_thw"].prod()) // self.processor.image_processor.merge_size**2
        return {"pixel_values": made["pixel_values"], "image_grid_thw": made["image_grid_thw"], "tokens": tokens}


@contextmanager
def served(engine: Engine) -> Iterator[str]:
    """Serve an engine; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer({"data": [{"id": "pocket"}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            engine.asked.append(self.path)
            self._answer(engine.render(body) if self.path.endswith("/render") else engine.generate(body))

        def _answer(self, content: Any) -> None:
            data = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
