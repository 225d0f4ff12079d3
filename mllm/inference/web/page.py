"""The page of `fieldmark web`: drop images, ask in words, watch the reasoning, see boxes, ask about one of them.

Generated text is displayed as text, never as HTML or Markdown. The page loads nothing from other machines.
"""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Iterable, Sequence
from functools import partial
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr  # pyright: ignore[reportMissingImports]
from PIL import ImageOps

from mllm.errors import FieldmarkError
from mllm.inference.hosts import guarded, own_names
from mllm.inference.web.session import SIDE, Session, WebLimits
from mllm.knowledge import domains
from mllm.prompting import prompts

if TYPE_CHECKING:
    from mllm.inference.assistant import Assistant

AS_TRAINED = "as trained"
STYLES = {AS_TRAINED: None, "answer at once": "direct", "reason first": "think", "question only": prompts.PLAIN}
CSS = """
.gradio-container { width: 100% !important; max-width: 1560px !important; margin: 0 auto !important; }
.gradio-container main, .gradio-container .wrap { width: 100%; }
#head h1 { font-size: 22px; margin: 0; } #head p { margin: 2px 0 0; opacity: .7; font-size: 14px; }
#ask-row { align-items: stretch; } .talk button[aria-label="Clear"] { display: none; }
.stage img { object-fit: contain; cursor: crosshair; }
"""
PLACEHOLDER = "Name a thing, or ask in words; ? asks what it is. Click a box to ask about it: #1 refers to box 1."
QUESTION = 2000
"""Most letters of a question."""


def page(assistants: Sequence[Assistant], limits: WebLimits) -> gr.Blocks:
    """Build the page for one model or two."""
    pocket = any(assistant.backend.family.name == "pocket" for assistant in assistants)
    with gr.Blocks(title="Fieldmark", analytics_enabled=False, delete_cache=(600, 3600), fill_width=True) as built:
        session = gr.State(Session(len(assistants)))
        names = " and ".join(escape(assistant.backend.name) for assistant in assistants)
        gr.HTML(f"<h1>Fieldmark</h1><p>{names}</p>", elem_id="head")
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
                clear = gr.Button("Remove all images", size="sm", elem_id="clear")
            with gr.Column(scale=4):
                with gr.Row(elem_id="ask-row"):
                    question = gr.Textbox(
                        placeholder=PLACEHOLDER, show_label=False, container=False, scale=8, max_lines=3,
                        max_length=QUESTION, autofocus=True, elem_id="question",
                    )  # fmt: skip
                    ask = gr.Button("Ask", variant="primary", scale=1, min_width=80, elem_id="ask")
                    stop = gr.Button("Stop", scale=1, min_width=80, elem_id="stop")
                with gr.Row():
                    stages, talks, copies = _columns(assistants)
        displayed = [session, strip, *stages, *talks, *copies]
        handlers = _Handlers(assistants, limits)
        private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        one = private | {"concurrency_id": "images", "concurrency_limit": 1}  # images take a core: the models need one
        drawn = [settings["candidates"]]
        drop.upload(handlers.add, [session, drop, *drawn], [drop, *displayed], **one)
        draw.click(handlers.draw, [session, *drawn], [question, *displayed], **one)
        clear.click(handlers.clear, [session, *drawn], [question, *displayed], **one)
        strip.select(handlers.choose, [session, *drawn], displayed, **one)
        settings["candidates"].change(handlers.look, [session, *drawn], displayed, **one)
        for k, stage in enumerate(stages):
            stage.select(handlers.pointer(k), [session, question], question, **one)
        inputs, triggers = [session, question, *settings.values()], [ask.click, question.submit]
        asking = gr.on(triggers, handlers.ask, inputs, [question, *displayed], **private)
        stop.click(handlers.stop, [session, *drawn], displayed, cancels=[asking], queue=False, **private)
    built.queue(max_size=limits.waiting, default_concurrency_limit=limits.together)
    return built


def run(
    assistants: Sequence[Assistant],
    limits: WebLimits,
    *,
    host: str,
    port: int,
    hosts: Iterable[str] = (),
    **launch: Any,
) -> Any:
    """Serve the page until the process is stopped, under this machine's names and `hosts`.

    Further arguments go to gradio's `launch`.
    """
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
        app_kwargs={"lifespan": partial(guarded, names=own_names(host, *hosts), largest=limits.largest)},
        css=CSS,
        theme=gr.themes.Default(primary_hue="emerald", secondary_hue="emerald"),
        **launch,
    )


class _Handlers:
    """Event handlers of the page; each returns the new values of the displayed components."""

    def __init__(self, assistants: Sequence[Assistant], limits: WebLimits) -> None:
        self.assistants, self.limits = assistants, limits

    def look(self, session: Session, candidates: bool) -> list[Any]:
        """Return the current values of all components."""
        self._forget(session)
        images = [(ImageOps.contain(one.open(), (SIDE // 4, SIDE // 4)), one.name) for one in session.images]
        current = session.current if images else None
        strip = gr.Gallery(value=images or None, visible=len(images) > 1, selected_index=current)
        stages = [session.drawn(k, candidates=candidates) for k in range(session.models)]
        return [session, strip, *stages, *self._transcripts(session)]

    def add(self, session: Session, files: list[str] | None, candidates: bool) -> list[Any]:
        """Add uploaded files; a warning names each one that is not an image."""
        for file in files or []:
            try:
                session.add(Path(file).name, Path(file), self.limits)
            except FieldmarkError as error:
                gr.Warning(escape(str(error)), title="Refused")
        return [None, *self.look(session, candidates)]

    def draw(self, session: Session, candidates: bool) -> list[Any]:
        """Add an image of the pocket world, with a question that fits it."""
        from mllm.pocket import world
        from mllm.pocket.species import DOMAINS, NOUNS, species

        number = random.randrange(10**6)
        rng = random.Random(number)
        domain = rng.choice(DOMAINS)
        scene = world.make_scene(number, domain, rng.sample(species(domain), rng.choice((2, 3, 4))))
        try:
            session.add(f"{domain} {number}", scene.image, self.limits)
        except FieldmarkError as error:
            gr.Warning(escape(str(error)), title="Refused")
        wanted = rng.choice(scene.things)
        question = f"Find the {NOUNS[domain]} with marks {', '.join(wanted.marks)}."
        return [question, *self.look(session, candidates)]

    def clear(self, session: Session, candidates: bool) -> list[Any]:
        """Remove all images and transcripts."""
        session.clear()
        return ["", *self.look(session, candidates)]

    def choose(self, session: Session, candidates: bool, event: gr.SelectData) -> list[Any]:
        """Display another image."""
        session.current = int(event.index)
        return self.look(session, candidates)

    def stop(self, session: Session, candidates: bool) -> list[Any]:
        """Mark unfinished answers as stopped."""
        session.stop()
        return self.look(session, candidates)

    def pointer(self, model: int) -> Any:
        """Return the click handler of a model's image: it puts the number of the clicked box into the question."""

        def point(session: Session, question: str, event: gr.SelectData) -> str:
            spot = None if self._forget(session) else session.spot_at(model, *event.index)
            if spot is None:
                return question
            return f"{question.rstrip()} #{spot.number}" if question.strip() else f"What is at #{spot.number}?"

        return point

    async def ask(self, session: Session, question: str, *settings: Any) -> AsyncIterator[list[Any]]:
        """Ask all models; while they generate, only the transcripts change. `settings`: values of `_settings`."""
        candidates, everywhere, style, domain, memory, tokens, temperature = settings
        self._forget(session)
        if not session.images or not question.strip() or len(question) > QUESTION:
            wrong = "is empty" if not question.strip() else f"has more than {QUESTION} letters"
            gr.Warning(f"The question {wrong}." if session.images else "Add an image first.", title="Not yet")
            yield [question, *self.look(session, candidates)]
            return
        unchanged = [gr.skip() for _ in range(2 + session.models)]
        limit = min(int(tokens), self.limits.tokens) if tokens else None
        options = {"style": STYLES[style], "domain": domain, "max_new_tokens": limit, "temperature": temperature}
        for number in range(len(session.images)) if everywhere else [session.current]:
            async for _ in session.ask(self.assistants, number, question.strip(), int(memory), **options):
                yield ["", *unchanged, *self._transcripts(session)]
        yield ["", *self.look(session, candidates)]

    def _forget(self, session: Session) -> bool:
        """Remove images whose upload has been deleted, and say so; return whether there were any."""
        gone = session.forget_expired()
        for name in gone:
            gr.Warning(escape(f"{name}: uploads are kept for an hour; drop it again."), title="Removed")
        return bool(gone)

    def _transcripts(self, session: Session) -> list[Any]:
        last = [next((turn.answer for turn in reversed(turns) if turn.answer), None) for turns in session.turns]
        texts = [json.dumps(one, indent=2, ensure_ascii=False) if one else None for one in last]
        return [*(session.messages(k) for k in range(session.models)), *texts]


def _settings(assistants: Sequence[Assistant], limits: WebLimits) -> dict[str, Any]:
    """Place the controls that are seldom changed, in the order in which `_Handlers.ask` takes them."""
    with gr.Accordion("How to ask", open=False):
        trained = " / ".join(sorted({assistant.backend.convention.prompt for assistant in assistants}))
        return {
            "candidates": gr.Checkbox(True, label="Draw the boxes of the reasoning", elem_id="candidates"),
            "everywhere": gr.Checkbox(False, label="Ask of every image", elem_id="everywhere"),
            "style": gr.Dropdown(
                list(STYLES), value=AS_TRAINED, label="Style", info=f"trained: {trained}", elem_id="style"
            ),
            "domain": gr.Dropdown(
                [("any", ""), *domains.names()],
                value="",
                label="Kind of thing",
                info="any noun, for the wording of a bare name",
                allow_custom_value=True,
            ),
            "memory": gr.Slider(
                0, 4, 0, step=1, label="Turns remembered", info="of no use to models trained on single questions"
            ),
            "tokens": gr.Slider(
                0, limits.tokens, 0, step=64, label="Maximum tokens", info="0: 1024, or what fits the model"
            ),
            "temperature": gr.Slider(0, 1.5, 0, step=0.1, label="Temperature", info="0: greedy"),
        }


def _columns(assistants: Sequence[Assistant]) -> tuple[list[Any], list[Any], list[Any]]:
    stages, talks, copies = [], [], []
    for k, assistant in enumerate(assistants):
        with gr.Column(min_width=320):
            stages.append(
                gr.Image(
                    label=assistant.backend.name, type="pil", format="png", interactive=False, height=420,
                    buttons=["download", "fullscreen"], elem_classes="stage", elem_id=f"stage-{k}",
                )
            )  # fmt: skip
            talks.append(
                gr.Chatbot(
                    show_label=False, height=340, render_markdown=False, buttons=["copy"], layout="bubble",
                    feedback_options=None, placeholder="No questions yet.", elem_classes="talk", elem_id=f"talk-{k}",
                )
            )  # fmt: skip
            with gr.Accordion("Last answer as JSON", open=False, elem_id=f"json-{k}"):
                copies.append(
                    gr.Code(language="json", interactive=False, show_label=False, max_lines=18, buttons=["copy"])
                )
    return stages, talks, copies
