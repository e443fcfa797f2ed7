"""The page itself: what stands where, and what happens when something is dropped, chosen or moved.

`gr` is the library Gradio, handed in: it is optional, and must be imported with telemetry off (`server.py`).
"""

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lungseg.errors import DataError
from lungseg.reporting.pages import render
from lungseg.runs.model_info import ModelInfo
from lungseg.serving.cases import CLOSED_FORM, METHODS, Case, Reader
from lungseg.serving.rendering import NOTICE, draw_viewer, pack

MOST_FILES = 20
MOST_MB = 64  # Size of one file, beyond which it is left out.
OPACITY = 75
PREDICTED = "predicted"
_HOUR_S = 3600
_UPLOAD_S = 120  # After which an upload is gone that was refused, and so never read.
_HINT = (
    f"PNG, JPEG, TIFF, BMP or DICOM, up to {MOST_FILES} at a time and {MOST_MB} MB each; they replace the ones before. "
    "They are kept in memory only, for an hour."
)
_OUTLINES = "Outlines: lungs yellow, infection pink"
_SET_OPACITY = "(value) => { document.documentElement.style.setProperty('--map', value / 100); }"
_SET_CROP = "(on) => { document.documentElement.classList.toggle('uncropped', !on); }"
_SET_OUTLINE = "(on) => { document.documentElement.classList.toggle('plain', !on); }"
_SAVE = """(content) => {
  if (!content) return;
  const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([bytes], {type: 'application/zip'}));
  link.download = 'lungseg.zip';
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}"""


def build_page(gr: Any, reader: Reader, about: str, uploads: Path, most_mb: int = MOST_MB) -> Any:
    """The page of a model, with a line about it, as Gradio `Blocks`; what arrives in `uploads` is deleted once read.

    A file of more than `most_mb` MB of 2**20 bytes is not read.
    """
    with gr.Blocks(title="lungseg", analytics_enabled=False, delete_cache=(30, _UPLOAD_S)) as page:
        cases = gr.State([], time_to_live=_HOUR_S)
        number = gr.State(0)
        on = _lay_out(gr, reader, about)
        handlers = _Handlers(gr, reader, uploads, most_mb)
        shown = [on.picture, on.facts]
        chosen = [cases, on.images, on.method, on.of_class]
        taken = [cases, on.images, on.notices]
        hidden = {"api_visibility": "private"}  # the page is for people; its events are no interface for programs
        for event in (page.load, on.example.click):
            event(handlers.example, number, [number, *taken], **hidden).then(handlers.show, chosen, shown, **hidden)
        uploaded = on.files.upload(handlers.read, [on.files, cases], [on.files, *taken], **hidden)
        uploaded.then(handlers.show, chosen, shown, **hidden)
        for component in (on.images, on.method, on.of_class):
            component.input(handlers.show, chosen, shown, **hidden)
        for component, script in ((on.opacity, _SET_OPACITY), (on.crop, _SET_CROP), (on.outline, _SET_OUTLINE)):
            component.change(None, component, None, js=script)
        choices = [cases, on.method, on.of_class, on.opacity, on.crop]
        packed = on.download.click(handlers.pack, choices, on.packed, **hidden)
        packed.then(None, on.packed, None, js=_SAVE).then(lambda: "", None, on.packed, **hidden)
    return page


def about_model(info: ModelInfo, name: str) -> str:
    """One line on a model."""
    licence = str(info.description.get("licence") or "not stated")
    calibrated = "" if info.temperature != 1 else ", probabilities not calibrated"
    classes = ", ".join(info.classes) or "lungs alone, no classes"
    return f"Model {name}: {classes}; {info.image_size} px{calibrated}; licence: {licence}"


def _lay_out(gr: Any, reader: Reader, about: str) -> SimpleNamespace:
    """Make the components, and give those that events speak of by name."""
    on = SimpleNamespace()
    title = "lungseg: lungs, class and evidence of a chest X-ray"
    gr.HTML(f'<h1>{title}</h1><p role="note">{NOTICE}</p><p>{escape(about)}</p>', elem_id="head")
    with gr.Row():
        with gr.Column(scale=3, min_width=240):
            on.files = gr.File(label="X-rays", file_count="multiple", height=170, elem_id="files")
            gr.HTML(f'<p class="hint">{_HINT}</p>')
            on.example = gr.Button("Another example phantom", elem_id="example")
            on.notices = gr.HTML(elem_id="notes")
            on.images = gr.Radio([], label="Images", visible=False, elem_id="images")
        with gr.Column(scale=6, min_width=320):
            on.picture = gr.HTML(elem_id="picture", min_height=240)
            gr.HTML('<div class="key">no evidence<i></i>most in the lungs</div>')
            percent = {"minimum": 0, "maximum": 100, "value": OPACITY, "step": 1, "buttons": []}
            on.opacity = gr.Slider(**percent, label="Opacity of the map, %", elem_id="opacity")
            with gr.Row():
                on.crop = gr.Checkbox(True, label="Map in the lungs only", elem_id="crop", min_width=150)
                on.outline = gr.Checkbox(True, label=_OUTLINES, elem_id="outlined", min_width=150)
        with gr.Column(scale=4, min_width=260):
            on.facts = gr.HTML(elem_id="facts", min_height=200)
            classes = [("the predicted class", PREDICTED), *((name, str(i)) for i, name in enumerate(reader.classes))]
            on.of_class = gr.Dropdown(classes, value=PREDICTED, label="Map of", elem_id="of-class")
            methods, many = [(METHODS[key], key) for key in reader.methods], len(reader.methods) > 1
            on.method = gr.Dropdown(methods, value=CLOSED_FORM, label="Method", interactive=many, elem_id="method")
            on.download = gr.Button("Download the results (zip)", elem_id="download")
            on.packed = gr.Textbox(visible=False)
    return on


class _Handlers:
    """What the server does, of plain values and cases."""

    def __init__(self, gr: Any, reader: Reader, uploads: Path, most_mb: int = MOST_MB):
        self._gr, self._reader, self._uploads, self._most_mb = gr, reader, uploads, most_mb

    def example(self, number: int) -> tuple[Any, ...]:
        """Number of the next phantom, and what `_taken` gives."""
        return (number + 1, *self._taken([self._reader.example(number)], []))

    def read(self, paths: Sequence[str] | None, before: list[Case]) -> tuple[Any, ...]:
        """Read what was dropped, delete it, and empty the drop zone; what was there stays if nothing can be read."""
        cases, notices = [], []
        files = [Path(path) for path in paths or ()]
        if len(files) > MOST_FILES:
            notices.append(f"The first {MOST_FILES} of {len(files)} files were taken; drop the others afterwards.")
        try:
            for path in files[:MOST_FILES]:
                try:
                    if path.stat().st_size > self._most_mb * 2**20:
                        raise DataError(f"{path.name}: larger than {self._most_mb} MB")
                    cases.append(self._reader.read(path, path.name))
                except DataError as error:
                    notices.append(str(error))
                except (OSError, MemoryError) as error:  # of this file; the others are taken
                    notices.append(f"{path.name}: cannot be read ({type(error).__name__})")
        finally:
            # Those beyond the limit too: nothing of a visit stays on the disk.
            for path in files:
                # Nothing but uploads, whatever path arrives in a request.
                if self._uploads.resolve() in path.resolve().parents:
                    path.unlink(missing_ok=True)
        return (None, *self._taken(cases or before, notices))

    def show(self, cases: list[Case], index: int | None, method: str, of_class: str) -> tuple[str, str]:
        """The picture and the facts of the chosen image."""
        if not cases:
            if index is None:
                return "", ""
            raise self._gr.Error("Images are forgotten after an hour; drop them again.", title="Nothing here")
        # The first one where none is chosen, as after an upload.
        case, label = cases[index or 0], _label(of_class)
        try:
            prediction = self._reader.predict(case, method, label)
        except ValueError as error:
            raise self._gr.Error(str(error), title="No map") from None
        classes = self._reader.classes
        name = classes[case.label if label is None else label] if classes else ""
        facts = render("app_facts.html.jinja", found=prediction, of_class=name)
        return draw_viewer(prediction, case.name, name), facts

    def pack(self, cases: list[Case], method: str, of_class: str, opacity: float, crop: bool) -> str:
        """All results as a zip file in base64."""
        label, info = _label(of_class), self._reader.predictor.info
        try:
            results = [(case.name, self._reader.predict(case, method, label)) for case in cases]
        except ValueError as error:
            raise self._gr.Error(str(error), title="No results") from None
        return base64.b64encode(pack(results, info, method, label, opacity / 100, crop)).decode()

    def _taken(self, cases: list[Case], notices: list[str]) -> tuple[Any, ...]:
        names = [f"{case.name}: {self._reader.name_of(case)}".removesuffix(": ") for case in cases]
        choices = [(name, i) for i, name in enumerate(names)]
        images = self._gr.update(choices=choices, value=0 if cases else None, visible=len(cases) > 1)
        return cases, images, render("app_notices.html.jinja", notices=notices)


def _label(of_class: str) -> int | None:
    return None if of_class == PREDICTED else int(of_class)
