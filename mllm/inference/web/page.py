"""The page behind `fieldmark web`: drop images, ask in words, watch the reasoning, see boxes, ask about one.

Everything a model wrote is shown as text, never as HTML or Markdown. The page loads nothing from other machines.
"""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr  # pyright: ignore[reportMissingImports]

from mllm.errors import FieldmarkError
from mllm.inference.web.session import SIDE, Desk, Limits
from mllm.knowledge import domains
from mllm.prompting import styles

if TYPE_CHECKING:
    from mllm.inference.assistant import Assistant

__all__ = ["Desk", "Limits", "page", "run"]

AS_TRAINED = "as trained"
STYLES = {AS_TRAINED: None, "answer at once": "direct", "reason first": "think", "as it stands": styles.PLAIN}
CSS = """
.gradio-container { width: 100% !important; max-width: 1560px !important; margin: 0 auto !important; }
.gradio-container main, .gradio-container .wrap { width: 100%; }
#head h1 { font-size: 22px; margin: 0; } #head p { margin: 2px 0 0; opacity: .7; font-size: 14px; }
#ask-row { align-items: stretch; } .talk button[aria-label="Clear"] { display: none; }
.stage img { object-fit: contain; cursor: crosshair; }
"""
PLACEHOLDER = "Name a thing, or ask in words. Click a box to ask about it: #1 stands for its place."


def page(assistants: Sequence[Assistant], limits: Limits) -> gr.Blocks:
    """Build the page for one model or two."""
    pocket = any(assistant.writer.family.name == "pocket" for assistant in assistants)
    with gr.Blocks(title="Fieldmark", analytics_enabled=False, delete_cache=(600, 3600), fill_width=True) as built:
        desk = gr.State(Desk(len(assistants)))
        gr.HTML(_head(assistants), elem_id="head")
        with gr.Row():
            with gr.Column(scale=1, min_width=250):
                drop = gr.File(
                    show_label=False, file_count="multiple", file_types=["image"], height=120, elem_id="drop"
                )
                draw = gr.Button("Draw me a pocket image", size="sm", visible=pocket, elem_id="draw")
                strip = gr.Gallery(
                    show_label=False, columns=3, height=190, allow_preview=False, interactive=False, visible=False,
                    object_fit="cover", buttons=[], elem_id="strip",
                )  # fmt: skip
                settings = _settings(assistants, limits)
                clear = gr.Button("Clear the desk", size="sm", elem_id="clear")
            with gr.Column(scale=4):
                with gr.Row(elem_id="ask-row"):
                    question = gr.Textbox(
                        placeholder=PLACEHOLDER, show_label=False, container=False, scale=8, max_lines=3,
                        max_length=2000, autofocus=True, elem_id="question",
                    )  # fmt: skip
                    ask = gr.Button("Ask", variant="primary", scale=1, min_width=80, elem_id="ask")
                    stop = gr.Button("Stop", scale=1, min_width=80, elem_id="stop")
                with gr.Row():
                    stages, talks, copies = _columns(assistants)
        seen = [desk, strip, *stages, *talks, *copies]
        views = _Views(assistants, limits)
        private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        shown = [settings["candidates"]]
        drop.upload(views.add, [desk, drop, *shown], [drop, *seen], **private)
        draw.click(views.draw, [desk, *shown], [question, *seen], **private)
        clear.click(views.clear, [desk, *shown], [question, *seen], **private)
        strip.select(views.choose, [desk, *shown], seen, **private)
        settings["candidates"].change(views.look, [desk, *shown], seen, **private)
        for k, stage in enumerate(stages):
            stage.select(views.pointer(k), [desk, question], question, **private)
        asked = gr.on(
            [ask.click, question.submit], views.ask, [desk, question, *settings.values()], [question, *seen], **private
        )
        stop.click(views.stop, [desk, *shown], seen, cancels=[asked], queue=False, **private)
    built.queue(max_size=limits.waiting, default_concurrency_limit=limits.together)
    return built


def run(assistants: Sequence[Assistant], *, host: str, port: int, limits: Limits = Limits(), **launch: Any) -> Any:  # noqa: B008
    """Serve the page until the process is told to stop; further arguments go to gradio's `launch`."""
    return page(assistants, limits).launch(
        server_name=host,
        server_port=port,
        share=False,
        max_file_size=limits.upload,
        quiet=True,
        show_error=True,
        footer_links=[],
        enable_monitoring=False,
        mcp_server=False,
        ssr_mode=False,
        css=CSS,
        theme=gr.themes.Default(primary_hue="emerald", secondary_hue="emerald"),
        **launch,
    )


class _Views:
    """What happens on the page; each method returns the new values of what is seen."""

    def __init__(self, assistants: Sequence[Assistant], limits: Limits) -> None:
        self.assistants, self.limits = assistants, limits

    def look(self, desk: Desk, candidates: bool) -> list[Any]:
        """Show everything as it stands."""
        images = [(_small(one.open()), one.name) for one in desk.images]
        strip = gr.Gallery(value=images or None, visible=len(images) > 1, selected_index=desk.at if images else None)
        stages = [desk.shown(k, candidates=candidates) for k in range(desk.models)]
        return [desk, strip, *stages, *self._said(desk)]

    def add(self, desk: Desk, files: list[str] | None, candidates: bool) -> list[Any]:
        """Put uploaded files on the desk; one that is no image is refused by name, the others stay."""
        for file in files or []:
            try:
                desk.add(Path(file).name, Path(file), self.limits)
            except FieldmarkError as error:
                gr.Warning(escape(str(error)), title="Refused")
        return [None, *self.look(desk, candidates)]

    def draw(self, desk: Desk, candidates: bool) -> list[Any]:
        """Put an image of the pocket world on the desk, with a question that fits it."""
        from mllm.pocket import world

        number = random.randrange(10**6)
        rng = random.Random(number)
        domain = rng.choice(world.DOMAINS)
        scene = world.make_scene(number, domain, rng.sample(world.species(domain), rng.choice((2, 3, 4))))
        try:
            desk.add(f"{domain} {number}", scene.image, self.limits)
        except FieldmarkError as error:
            gr.Warning(escape(str(error)), title="Refused")
        wanted = rng.choice(scene.things)
        question = f"Find the {world.NOUNS[domain]} with marks {', '.join(wanted.marks)}."
        return [question, *self.look(desk, candidates)]

    def clear(self, desk: Desk, candidates: bool) -> list[Any]:
        """Empty the desk."""
        desk.clear()
        return ["", *self.look(desk, candidates)]

    def choose(self, desk: Desk, candidates: bool, event: gr.SelectData) -> list[Any]:
        """Look at another image."""
        desk.at = int(event.index)
        return self.look(desk, candidates)

    def stop(self, desk: Desk, candidates: bool) -> list[Any]:
        """Say that what was being written has been stopped."""
        desk.stop()
        return self.look(desk, candidates)

    def pointer(self, model: int) -> Any:
        """Return what a click on a model's image does: the place under it goes into the question."""

        def point(desk: Desk, question: str, event: gr.SelectData) -> str:
            spot = desk.spot_at(model, *event.index)
            if spot is None:
                return question
            return f"{question.rstrip()} #{spot.number}" if question.strip() else f"What is at #{spot.number}?"

        return point

    async def ask(
        self,
        desk: Desk,
        question: str,
        candidates: bool,
        everywhere: bool,
        style: str,
        domain: str | None,
        memory: int,
        room: int,
        temperature: float,
    ) -> AsyncIterator[list[Any]]:
        """Put the question to all models; while they write, only the transcripts change."""
        if not desk.images or not question.strip():
            gr.Warning("Put an image on the desk first." if not desk.images else "Ask something.", title="Not yet")
            yield [question, *self.look(desk, candidates)]
            return
        still = [gr.skip() for _ in range(2 + desk.models)]
        options = {
            "style": STYLES[style],
            "domain": domain,
            "max_new_tokens": min(int(room), self.limits.tokens) if room else None,
            "temperature": temperature,
        }
        for number in range(len(desk.images)) if everywhere else [desk.at]:
            async for _ in desk.ask(self.assistants, number, question.strip(), int(memory), **options):
                yield ["", *still, *self._said(desk)]
        yield ["", *self.look(desk, candidates)]

    def _said(self, desk: Desk) -> list[Any]:
        """Return the transcripts, and each model's last answer as JSON."""
        last = [next((turn.answer for turn in reversed(turns) if turn.answer), None) for turns in desk.turns]
        texts = [json.dumps(one, indent=2, ensure_ascii=False) if one else None for one in last]
        return [*(desk.messages(k) for k in range(desk.models)), *texts]


def _settings(assistants: Sequence[Assistant], limits: Limits) -> dict[str, Any]:
    """Place the controls that most people leave as they are; the order is that of `_Views.ask`."""
    with gr.Accordion("How to ask", open=False):
        trained = " / ".join(sorted({assistant.writer.convention.prompt for assistant in assistants}))
        return {
            "candidates": gr.Checkbox(True, label="Draw what the reasoning looked at", elem_id="candidates"),
            "everywhere": gr.Checkbox(False, label="Ask of every image", elem_id="everywhere"),
            "style": gr.Dropdown(
                list(STYLES), value=AS_TRAINED, label="Style", info=f"trained: {trained}", elem_id="style"
            ),
            "domain": gr.Dropdown(
                [("any", ""), *domains.names()], value="", label="Kind of thing", info="for the wording of a bare name"
            ),
            "memory": gr.Slider(
                0, 4, 0, step=1, label="Turns remembered", info="models trained on single questions know none"
            ),
            "room": gr.Slider(
                0, limits.tokens, 0, step=64, label="Tokens at most", info="0: what the model has room for"
            ),
            "temperature": gr.Slider(0, 1.5, 0, step=0.1, label="Temperature", info="0: greedy"),
        }


def _columns(assistants: Sequence[Assistant]) -> tuple[list[Any], list[Any], list[Any]]:
    """Place an image, a transcript and the JSON for each model; returns the three kinds."""
    stages, talks, copies = [], [], []
    for k, assistant in enumerate(assistants):
        with gr.Column(min_width=320):
            stages.append(
                gr.Image(
                    label=assistant.writer.name, type="pil", format="png", interactive=False, height=420,
                    buttons=["download", "fullscreen"], elem_classes="stage", elem_id=f"stage-{k}",
                )
            )  # fmt: skip
            talks.append(
                gr.Chatbot(
                    show_label=False, height=340, render_markdown=False, buttons=["copy"], layout="bubble",
                    feedback_options=None, placeholder="Nothing asked yet.", elem_classes="talk", elem_id=f"talk-{k}",
                )
            )  # fmt: skip
            with gr.Accordion("Last answer as JSON", open=False, elem_id=f"json-{k}"):
                copies.append(
                    gr.Code(language="json", interactive=False, show_label=False, max_lines=18, buttons=["copy"])
                )
    return stages, talks, copies


def _head(assistants: Sequence[Assistant]) -> str:
    names = " and ".join(escape(assistant.writer.name) for assistant in assistants)
    return f"<h1>Fieldmark</h1><p>{names}</p>"


def _small(image: Any) -> Any:
    """Return a thumbnail."""
    small = image.copy()
    small.thumbnail((SIDE // 4, SIDE // 4))
    return small
