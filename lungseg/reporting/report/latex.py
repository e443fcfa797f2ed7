"""The LaTeX table of a paper, from the same numbers as the page."""

from __future__ import annotations

from lungseg.reporting.report.content import Content
from lungseg.reporting.report.score_sections import headlines
from lungseg.reporting.report.words import class_counts, counted_images, digits_of, title_of

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
}


def latex_table(content: Content) -> str:
    r"""The headline numbers with their intervals; needs no LaTeX package. `\input{table.tex}` takes it."""
    counts = ", ".join(f"{name} {count}" for name, count in class_counts(content).items())
    caption = f"{title_of(content)}, {counted_images(content.images)}" + (f" ({counts})" if counts else "")
    draws = content.what.get("bootstraps")
    caption += f"; 95 % bootstrap intervals{f' of {draws} resamples' if draws else ''}."
    rows = []
    for name, title, number, images in headlines(content):
        digits = digits_of(name)
        value, ends = f"{number['value']:.{digits}f}", "--"
        if number.get("low") is not None and number.get("high") is not None:
            ends = f"[{number['low']:.{digits}f}, {number['high']:.{digits}f}]"
        rows.append(f"{escape_latex(title)} & {value} & {ends} & {images} \\\\")
    lines = [
        "% written by lungseg from metrics.json; do not edit",
        r"\begin{table}[htbp]",
        r"\centering",
        rf"\caption{{{escape_latex(caption)}}}",
        r"\begin{tabular}{lrrr}",
        r"\hline",
        r"Score & Value & 95\,\% interval & Images \\",
        r"\hline",
        *(rows or [r"nothing was measured & & & \\"]),
        r"\hline",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def escape_latex(words: str) -> str:
    """Words with what LaTeX takes for commands escaped."""
    return "".join(_SPECIAL.get(letter, letter) for letter in words)
