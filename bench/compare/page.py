"""A digest as one HTML page: light and dark, nothing asked of anywhere. Its text, style and script lie in page/."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template

import msgspec

from bench.compare import hits, tables
from bench.compare.costs import GIGABYTE, HOURS_OF_MONTH, MILLION
from bench.compare.digest import Digest
from bench.compare.models import models, use
from bench.compare.pictures import INCHES, Picture
from bench.compare.sections import COSTS, Section, method
from bench.compare.statistics import Estimate, Share
from bench.compare.tables import CENTS, Table, Value
from bench.compare.verdict import Sentence, why_none
from bench.compare.wording import NOT_MEASURED, interval, told

HERE = Path(__file__).parent / "page"
POLICY = "default-src 'none'; img-src data:; style-src {style}; script-src {script}; base-uri 'none'; form-action 'none'"
PRICE_LABELS = {
    "gateway_vcpu_hour": "a vCPU of gateway and projector, $ an hour",
    "redis_vcpu_hour": "a vCPU of Redis, $ an hour",
    "postgres_vcpu_hour": "a vCPU of PostgreSQL, $ an hour",
    "gb_month": "Redis's memory, $ a GB and month",
    "view_month": "what only the view needs, such as Kafka, $ a month",
}
USE_LABELS = {"reads_per_second": "reads a second, over the month", "reads_per_write": "reads per change"}


def page(digest: Digest, sections: Sequence[Section], pictures: Mapping[str, Picture], sentences: Sequence[Sentence]) -> str:
    """pictures: by name, all that the sections have. sentences: of the verdict."""
    style, script = (HERE / "page.css").read_text(), (HERE / "costs.js").read_text() + (HERE / "page.js").read_text()
    results = digest.results
    return Template((HERE / "page.html").read_text()).substitute(
        policy=POLICY.format(style=_hash(style), script=_hash(script)),
        title=escape(f"viewgate compare: {results.scenario}"),
        style=style,
        script=script,
        model=_data(digest),
        scenario=escape(results.scenario),
        about=escape(results.about),
        run=escape(f"{results.began} · {results.machine} · seed {results.seed}"),
        banner=f'<p class="banner">{escape(why)}</p>' if (why := why_none(digest)) else "",
        contents="".join(f'<a href="#{name}">{name}</a>' for name in _contents(sections)),
        summary=_table(tables.summary(digest)),
        legend="The small numbers are 95 % intervals over repeats. Rows from Redis: of a warm cache. Cents: at the prices below.",
        decisions=_decisions(sentences),
        sections="\n".join([*(_section(section, digest, pictures) for section in sections), _verdict(digest, sentences), _method(digest)]),
    )


def _contents(sections: Sequence[Section]) -> list[str]:
    return ["summary", *(section.name for section in sections), "verdict", "method"]


def _section(section: Section, digest: Digest, pictures: Mapping[str, Picture]) -> str:
    shown = "".join(_figure(pictures[plot.name]) for plot in section.plots)
    parts = [
        f"<h2>{escape(section.title)}</h2>",
        *(f"<p>{escape(words)}</p>" for words in section.words),
        f'<div class="pictures">{shown}</div>' if shown else f"<p>{NOT_MEASURED.capitalize()}.</p>",
    ]
    if section.name == COSTS:
        parts += [_form(digest), *(_table(table) for table in section.tables)]
    else:
        parts += [f"<details><summary>{escape(table.title)}</summary>{_table(table)}</details>" for table in section.tables]
    return f'<section id="{section.name}">\n' + "\n".join(parts) + "\n</section>"


def _figure(picture: Picture) -> str:
    light, dark = (f"data:image/png;base64,{base64.b64encode(png).decode()}" for png in (picture.light, picture.dark))
    width, height = (round(100 * inches) for inches in INCHES)
    return (
        f'<figure id="picture-{picture.name}"><picture><source media="(prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img src="{light}" width="{width}" height="{height}" alt="{escape(picture.alt)}"></picture></figure>\n'
    )


def _table(table: Table) -> str:
    heads = "".join(f'<th scope="col">{escape(column)}</th>' for column in table.columns)
    rows = "".join(
        f'<tr data-row="{escape(name)}"><th scope="row">{escape(name)}</th>{"".join(map(_cell, values))}</tr>\n'
        for name, values in table.rows
    )
    nothing = f'<tr><td class="words" colspan="{len(table.columns)}">{NOT_MEASURED}</td></tr>'
    return (
        f'<div class="scrolled" tabindex="0" role="region" aria-label="{escape(table.title)}"><table id="table-{table.name}">'
        f"<caption>{escape(table.title)}</caption><thead><tr>{heads}</tr></thead><tbody>{rows or nothing}</tbody></table></div>"
    )


def _cell(value: Value) -> str:
    """With the whole number beside the text of it, for programs: a share's in percent."""
    if value is None or isinstance(value, str):
        return f'<td class="words">{escape(told(value))}</td>'
    if not isinstance(value, Estimate):
        return f'<td data-value="{value + 0!r}">{escape(told(value))}</td>'
    numbers = value.scaled(100) if isinstance(value, Share) else value
    ends = f' data-low="{numbers.low!r}" data-high="{numbers.high!r}"' if interval(value) else ""
    small = f"<small>{interval(value)}</small>" if ends and value.low != value.high else ""
    return f'<td data-value="{numbers.value!r}"{ends}>{told(value)}{small}</td>'


def _form(digest: Digest) -> str:
    first = [(PRICE_LABELS, msgspec.structs.asdict(digest.prices), "0"), (USE_LABELS, msgspec.structs.asdict(use(digest.results)), "0.001")]
    fields = "".join(
        f'<label>{escape(label)}<input name="{name}" type="number" step="any" min="{least}" value="{values[name]:g}" required></label>'
        for labels, values, least in first
        for name, label in labels.items()
    )
    return f'<form id="prices" autocomplete="off">{fields}<button type="reset">back to the first prices</button></form>'


def _decisions(sentences: Sequence[Sentence]) -> str:
    decisions = [sentence for sentence in sentences if sentence.decides]
    told_of = "".join(f"<li>{escape(sentence.words)}</li>" for sentence in decisions)
    return f'<ul id="decisions">{told_of}</ul><p class="faint"><a href="#verdict">What it rests on</a></p>' if decisions else ""


def _verdict(digest: Digest, sentences: Sequence[Sentence]) -> str:
    items = "".join(f"<li>{escape(sentence.words)} <small>{_rests_on(sentence)}</small></li>\n" for sentence in sentences)
    body = f"<ol>{items}</ol>" if items else f"<p>{escape(why_none(digest))}</p>"
    return f'<section id="verdict"><h2>Verdict</h2>{body}</section>'


def _rests_on(sentence: Sentence) -> str:
    return "rests on " + ", ".join(f'<a href="#table-{name}">{escape(name.replace("-", " "))}</a>' for name in sentence.rests_on)


def _method(digest: Digest) -> str:
    items = "".join(f"<dt>{escape(name)}</dt><dd>{_method_text(name, text)}</dd>\n" for name, text in method(digest))
    return f'<section id="method"><h2>Method</h2><dl>{items}</dl></section>'


def _method_text(name: str, text: str) -> str:
    return f"<code>{escape(text)}</code>" if name == "command" else escape(text)


def _data(digest: Digest) -> str:
    """What the script computes costs from: numbers and names of ours, no text of the run."""
    told_of = {
        "models": list(models(digest.results).values()),
        "hits": {mode: hits.plain(hits.by_skew(digest.results, mode, cold=False)) for mode in digest.caches},
        "prices": digest.prices,
        "use": use(digest.results),
        "hours_of_month": HOURS_OF_MONTH,
        "gigabyte": GIGABYTE,
        "million": MILLION,
        "cents": CENTS,
        "not_measured": NOT_MEASURED,
    }
    return msgspec.json.encode(told_of).decode()


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
