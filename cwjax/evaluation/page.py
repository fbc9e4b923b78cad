"""What every HTML page has: a frame without anything from the network, the style, sound inside the page."""

import base64
import html
import io

import numpy as np
import soundfile

from cwjax.data.audio.log_mel import SAMPLING_RATE


def frame(title: str, style: str, body: str, script: str = "") -> str:
    """A whole page.

    Args:
        title: as text.
        style: CSS behind that of all pages.
        body: HTML of the main part.
        script: JavaScript to run at its end; without it the page has none.
    """
    return (
        "<!doctype html>\n<html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>\n"
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}{style}</style>\n<main>\n{body}\n</main>\n"
        + (f"<script>{script}</script>\n" if script else "")
        + "</html>\n"
    )


def player(samples: np.ndarray) -> str:
    """HTML that plays samples at 16 kHz, (n,)."""
    return f"<audio controls preload=none src='{audio_uri(samples)}'></audio>"


def audio_uri(samples: np.ndarray) -> str:
    """Samples at 16 kHz, (n,), as the address of a sound that a page holds itself."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, SAMPLING_RATE, format="FLAC", subtype="PCM_16")
    return "data:audio/flac;base64," + base64.b64encode(buffer.getvalue()).decode()


_STYLE = """
:root { --ink:#1f2328; --soft:#59636e; --line:#d9dce1; --paper:#fff; --mark:#ffe2c2; color-scheme: light }
body { margin:0; background:var(--paper); color:var(--ink); font:16px/1.55 system-ui,sans-serif }
main { max-width:860px; margin:0 auto; padding:2.2rem 1.2rem 4rem }
h1 { font-size:1.7rem; margin:0 0 .4rem } h2 { font-size:1.15rem; margin:2.6rem 0 .6rem }
.lead { font-size:1.12rem; color:var(--soft) } .lead b { color:var(--ink) }
figure { margin:1rem 0; overflow-x:auto } figure svg { max-width:100%; height:auto }
table { border-collapse:collapse; font-size:.9rem } th { text-align:left; font-weight:600; white-space:nowrap }
td, th { padding:.28rem .9rem .28rem 0; vertical-align:top; border-top:1px solid var(--line) }
tr:first-child > * { border-top:0 } .facts td { overflow-wrap:anywhere }
section { border:1px solid var(--line); border-radius:10px; padding:.3rem 1rem .7rem; margin:.9rem 0; overflow-x:auto }
mark { background:var(--mark); color:inherit; border-radius:3px; padding:0 .15em }
"""
